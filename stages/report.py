"""Stage report: reports/report.html, one page that tells this run's story from its tables alone."""

from leaf import store
from leaf.errors import one_line_errors
from leaf.params import flatten, read_params
from leaf.report.render import render
from leaf.report.run import read_run

REPORT = "reports/report.html"


def main() -> None:
    """Read the tables of the stages before, fill the page, write it."""
    run = read_run(".", flatten(read_params("report").model_dump()))
    html = render(run)
    with store.replacing(REPORT) as partial:
        partial.write_text(html, encoding="utf-8")
    print(f"{REPORT}: one file, {len(html.encode()) / 1e6:.1f} MB; open it in a browser")


if __name__ == "__main__":
    with one_line_errors():
        main()
