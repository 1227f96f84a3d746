"""Packaging. Dependencies are lower bounds with a reason where one is not obvious; everything that is imported is declared."""

from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = next(
    line.split('"')[1]
    for line in (HERE / "autodistill_grounded_sam" / "__init__.py").read_text(encoding="utf-8").splitlines()
    if line.startswith("__version__")
)

REQUIRED = [
    "autodistill>=0.1.29",  # label()'s signature and folder layout are those of 0.1.29
    "scikit-learn>=1.2",  # autodistill imports it and does not declare it
    "roboflow>=1.1.50",  # likewise; also the upload of human_in_the_loop
    "click>=8.1,<8.5",  # roboflow holds typer below 0.26, and what that says of arguments in --help is lost on click 8.5
    "huggingface_hub>=0.30",
    "jinja2>=3.1",
    "markupsafe>=2.1",
    "numpy>=1.23",
    "opencv-python-headless>=4.8",
    "pillow>=10.1",
    "pyarrow>=14",
    "pycocotools>=2.0.7",
    "pydantic>=2.5",
    "pyyaml>=6",
    "requests>=2.28",
    "rich>=13",
    "safetensors>=0.4",
    "scipy>=1.10",
    "supervision>=0.27",
    "torch>=2.2",
    "torchvision>=0.17",
    "transformers>=5.0",  # module names of Grounding DINO and SAM as our tables for official checkpoints know them
    "typer>=0.12",
]
EXTRAS = {
    "yolo": ["ultralytics>=8.3", "matplotlib>=3.5"],  # AGPL-3.0: it stays a choice of the user's
    "onnx": ["onnx>=1.14", "onnxruntime>=1.16"],  # students as one file: opset 17
    # groundingdino-py pins supervision==0.6.0 and cannot live beside a current one; rf-groundingdino is the same module, kept up.
    "original": ["segment-anything>=1.0", "segment-anything-hq>=0.3", "rf-groundingdino>=0.3"],
    "omdet": ["timm>=1.0"],  # the image encoder of OmDet-Turbo's published weights is timm's
    "ray": ["ray[data]>=2.40"],
    "cloud": ["universal_pathlib>=0.2"],  # images by URL; s3:// needs s3fs beside it, gs:// gcsfs, and so on
    "app": ["gradio>=6", "fastapi>=0.115", "uvicorn>=0.30"],  # gradio brings both; the page is mounted with them
    # the site: material 9 is made for mkdocs 1 and ends with it; and what executes the notebooks of the stories
    "docs": [
        "mkdocs>=1.6,<2", "mkdocs-jupyter>=0.25", "mkdocs-material>=9.6,<10", "mkdocstrings[python]>=0.28",
        "nbformat>=5", "nbclient>=0.10", "ipykernel>=6",
    ],
    "browser": ["playwright>=1.45", "axe-playwright-python>=0.1.4"],  # for tests that drive Chromium; axe-core is in it
    "dev": [
        "build>=1.2", "hypothesis>=6.100", "mypy>=1.11", "onnx>=1.14", "onnxruntime>=1.16", "pre-commit>=3.7", "pytest>=8.2",
        "pytest-xdist>=3.5", "ruff>=0.8", "segment-anything>=1.0", "setuptools>=77", "types-PyYAML", "types-requests",
        "ultralytics>=8.3", "universal_pathlib>=0.2",
    ],
}  # fmt: skip

setup(
    name="autodistill-grounded-sam",
    version=VERSION,
    description="Label a folder of images from words: Grounding DINO and SAM behind autodistill's label(), resumable, measured",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    install_requires=REQUIRED,
    extras_require=EXTRAS,
    packages=[
        *find_packages(include=["autodistill_grounded_sam", "autodistill_grounded_sam.*"]),
        "autodistill_grounded_sam.ontologies",
    ],
    package_dir={"autodistill_grounded_sam.ontologies": "ontologies"},
    package_data={
        "autodistill_grounded_sam": ["py.typed", "mini/*.json", "mini/*/*", "report/templates/*", "review/page/*", "app/page/*"],
        "autodistill_grounded_sam.ontologies": ["*.yaml", "seginw/*.yaml"],
    },
    entry_points={"console_scripts": ["grounded-sam=autodistill_grounded_sam.cli:main"]},
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Image Recognition",
        "Typing :: Typed",
    ],
)
