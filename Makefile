# Two commands set everything up on a fresh machine with Python 3.11 or newer.
PYTHON ?= python3

.PHONY: serve test fuzz lint docs image weights model_repository

MINUTES = 10
BUNDLE = mtcp_serve/bundles/mtcp-lite
CARD = mtcp_serve/bundles/mtcp-lite/MODEL_CARD.md
RUN = runs/mtcp-lite
VIEWS = 400
MODEL_REPOSITORY = model_repository

serve: .venv-serve/installed  ## the server with the shipped weights, no torch
	.venv-serve/bin/mtcp-serve serve

PYTEST = .venv/bin/python -m pytest -n auto --max-worker-restart=0 --dist loadfile --no-loadscope-reorder

# Training's tests have workers of their own: one that had the inference engines loaded as well died in them twice.
test: .venv/installed lint  ## everything the project checks about itself
	$(PYTEST) --ignore tests/training
	$(PYTEST) tests/training

fuzz: .venv/installed  ## the image reader on made-up files: make fuzz MINUTES=30 [CONTAINERS=1]; x86-64 Linux only
	.venv/bin/pip install --quiet -c constraints.txt -e '.[test,fuzz]'
	mkdir -p .fuzz
	CONTAINERS=$(CONTAINERS) .venv/bin/python -m tests.mtcp_serve.inference.images.fuzz .fuzz/corpus$(CONTAINERS) -artifact_prefix=.fuzz/ \
		-max_total_time=$$((60 * $(MINUTES))) -timeout=5 -rss_limit_mb=2048 -max_len=65536

lint: .venv/installed
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

docs: .venv/installed  ## the pages of the Python API, in build/docs
	.venv/bin/python docs/api.py

image: .venv/installed  ## build the CPU image and try it; needs Docker with Compose: make image BUILD="--build-arg ..."
	docker build -t mtcp-serve:cpu $(BUILD) .
	MTCP_TEST_IMAGE=mtcp-serve:cpu .venv/bin/python -m pytest tests/deploy/test_container.py

.venv-serve/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-serve
	.venv-serve/bin/pip install --quiet -c constraints.txt -e '.[cpu]'
	touch $@

.venv/installed: pyproject.toml constraints.txt export/triton/local-requirements.txt
	$(PYTHON) -m venv .venv
	.venv/bin/pip install --quiet -c constraints.txt -e '.[test]'
	# A whole Triton for the tests; x86-64 Linux and Python 3.11 or 3.12 only, elsewhere they are skipped.
	$(PYTHON) -m venv --without-pip .venv/triton
	-.venv/bin/pip --python .venv/triton install --quiet --no-deps --only-binary :all: -r export/triton/local-requirements.txt
	touch $@

# ARGS are settings of the training. To try the recipe: few ids in DATA's splits, ARGS="minutes=3 data.batch_size=2",
# VIEWS=24, and RUN, BUNDLE and MODEL_REPOSITORY somewhere else, for what lies there is replaced.
UNDO = --undo-class-weights 0.25 --undo-class-weights semseg/voc=1

weights: .venv/installed  ## train the shipped bundle again: make weights DATA=path/to/data
	.venv/bin/python -m training train mtcp_lite root=$(DATA) $(ARGS) --run $(RUN)
	.venv/bin/python -m training strip $(RUN)/last.pt -o $(RUN)/stripped.pt $(UNDO)
	.venv/bin/python -m training shift-depth $(RUN)/stripped.pt -o $(RUN)/shifted.pt --images $(VIEWS)
	.venv/bin/python -m training confidence $(RUN)/shifted.pt -o $(RUN)/model.safetensors --images $(VIEWS) \
		--report $(RUN)/confidence.json
	[ ! -e $(BUNDLE)/model.safetensors ] || mv $(BUNDLE)/model.safetensors $(RUN)/replaced.safetensors
	.venv/bin/python -m export.onnx $(RUN)/model.safetensors -o $(BUNDLE) --version 2 --fp16-weights --license Apache-2.0 \
		--card $(CARD) --images $(DATA)/photos/images --ids $(DATA)/photos/splits/val.txt
	cp $(RUN)/model.safetensors $(BUNDLE)/
	$(MAKE) -o .venv/installed model_repository

model_repository: .venv/installed  ## the committed config.pbtxt files, from the shipped bundle
	for backend in onnxruntime tensorrt python; do \
		.venv/bin/python -m export.triton $(BUNDLE) -o $(MODEL_REPOSITORY)/$$backend --backend $$backend --config-only || exit; \
	done
