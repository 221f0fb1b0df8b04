"""Read a data set (an .npz file or a folder of images) into one array of square images and one table."""
