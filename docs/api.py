"""The API pages: ``make docs`` writes them as HTML to ``build/docs``."""

import argparse
from pathlib import Path

import pdoc

import mtcp_serve

PAGES = (
    "mtcp_serve",
    "mtcp_serve.clients",
    "mtcp_serve.engines.base",
    "mtcp_serve.engines.loading",
    "mtcp_serve.errors",
    "mtcp_serve.inference.sources",
    "mtcp_serve.kinds",
    "mtcp_serve.kinds.base",
    "mtcp_serve.outputs.formats.base",
)
"""What programs import, and what extensions subclass; the server and the commands describe themselves."""


def write_pages(folder: Path) -> None:
    """Write the pages to ``folder``."""
    for name in mtcp_serve.__all__:  # imported when first used, which pdoc does not wait for
        getattr(mtcp_serve, name)
    pdoc.render.configure(docformat="google", show_source=False)
    pdoc.pdoc(*PAGES, output_directory=folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--out", type=Path, default=Path("build/docs"))
    arguments = parser.parse_args()
    write_pages(arguments.out)
    print(arguments.out / "mtcp_serve.html")
