"""Stage synthesize: draw the leaf data set that stands in for photographs."""

from tqdm import tqdm

from leaf.drawing import draw_dataset, scaled, write_npz
from leaf.errors import one_line_errors
from leaf.params import read_params

OUTPUT = "data/raw/leaves.npz"


def main() -> None:
    """Read the parameters, draw, write data/raw/leaves.npz."""
    params = read_params("synthesize")
    recipe = scaled(params.drawn.images)
    images, labels = draw_dataset(
        recipe, params.drawn.size, params.drawn.seed, lambda numbers: tqdm(numbers, "drawing", disable=None)
    )
    write_npz(OUTPUT, images, [params.classes[label] for label in labels])
    print(
        f"drew {recipe.healthy} {params.classes[0]} and {recipe.unhealthy} {params.classes[1]} leaves; with "
        f"{recipe.healthy_duplicates + recipe.unhealthy_duplicates} exact copies and 2 cartoons × {recipe.copies} "
        f"{recipe.images} images in {OUTPUT}"
    )


if __name__ == "__main__":
    with one_line_errors():
        main()
