"""`cogview data check`: looks through a folder of pictures and captions."""

from typing import Annotated

from cogview.cli.report import print_result
from cogview.errors import CogViewError
from cogview.runs.data_options import CheckDataOptions
from cogview.runs.flags import FLAT


def run(options: Annotated[CheckDataOptions, FLAT], *, strict: bool = False, json: bool = False) -> None:
    """Look through a folder of pictures and captions: counts, sizes, lengths of captions, and what is broken.

    Every picture is decoded, nothing is written.

    Args:
        options: which, and what is counted.
        strict: end with exit code 1, after the report, if there is any problem or a picture without captions.
        json: print the result as JSON.
    """
    from cogview.runs.data_sets import check_data

    report = check_data(options)
    print_result(report.to_json(), [report.to_text()], json)
    if strict and (report.num_problems or report.num_without_caption):
        raise CogViewError(
            f"{options.data} has {report.num_problems:,} problems and {report.num_without_caption:,} pictures whose "
            "captions are empty: mend or remove what the report lists, or leave --strict out"
        )
