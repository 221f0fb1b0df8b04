"""The two pictures that do not belong: someone's joke, pasted into the data set many times over."""

import cv2
import numpy as np


def draw_cartoon(number: int, size: int) -> np.ndarray:
    """Cartoon 0 (a green frog) or 1 (a singer with a hat), uint8 (size, size, 3) RGB; the same at every call."""
    canvas = np.zeros((384, 384, 3), np.uint8)
    (_frog, _singer)[number](canvas)
    return cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA)


def _frog(canvas: np.ndarray) -> None:
    canvas[:] = (38, 74, 110)
    green, dark = (126, 190, 62), (24, 40, 20)
    cv2.ellipse(canvas, (192, 230), (150, 116), 0, 0, 360, green, -1, cv2.LINE_AA)
    for x in (104, 280):
        cv2.circle(canvas, (x, 116), 58, green, -1, cv2.LINE_AA)
        cv2.circle(canvas, (x, 110), 38, (250, 250, 240), -1, cv2.LINE_AA)
        cv2.circle(canvas, (x + 8, 114), 17, dark, -1, cv2.LINE_AA)
        cv2.circle(canvas, (192 + (x - 192) // 5, 206), 5, dark, -1, cv2.LINE_AA)
    cv2.ellipse(canvas, (192, 236), (96, 58), 0, 10, 170, dark, 9, cv2.LINE_AA)
    cv2.ellipse(canvas, (192, 306), (26, 22), 0, 0, 360, (226, 96, 110), -1, cv2.LINE_AA)


def _singer(canvas: np.ndarray) -> None:
    canvas[:, :192], canvas[:, 192:] = (236, 178, 44), (70, 44, 120)
    cv2.circle(canvas, (192, 222), 116, (246, 214, 176), -1, cv2.LINE_AA)
    cv2.rectangle(canvas, (62, 116), (322, 140), (28, 28, 34), -1)
    cv2.rectangle(canvas, (106, 22), (278, 124), (28, 28, 34), -1)
    cv2.rectangle(canvas, (106, 92), (278, 112), (190, 30, 48), -1)
    for x in (148, 236):
        cv2.circle(canvas, (x, 200), 13, (28, 28, 34), -1, cv2.LINE_AA)
    cv2.ellipse(canvas, (192, 276), (40, 34), 0, 0, 360, (120, 20, 30), -1, cv2.LINE_AA)
    cv2.putText(canvas, "LA LA", (96, 372), cv2.FONT_HERSHEY_DUPLEX, 1.9, (250, 250, 250), 5, cv2.LINE_AA)
