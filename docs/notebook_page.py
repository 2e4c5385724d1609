r"""A hook of mkdocs: shows notebook.ipynb, with the outputs that it holds, as a page beside the file itself.

Write the outputs again with

    .venv/bin/jupyter nbconvert --to notebook --execute --inplace \
        --ExecutePreprocessor.record_timing=False docs/notebook.ipynb
"""

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from nbconvert import MarkdownExporter


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Called by mkdocs with all files of docs/."""
    page, _ = MarkdownExporter().from_filename(str(Path(config.docs_dir, "notebook.ipynb")))
    files.append(File.generated(config, "notebook.md", content=page))
    return files
