# make run and make test set up what is missing; make help lists the rest.
PYTHON ?= python3
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Without bytecode, every process would compile thousands of modules again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup setup-hashed hashes sbom run repro ui test test-slow soak fuzz newest check docs bench clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

PIP_OPTIONS ?=  # --no-compile: a minute of processor time less; modules are then compiled when they are first imported

.venv/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet $(PIP_OPTIONS) --constraint constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet $(PIP_OPTIONS) --constraint constraints.txt --editable ".[dev]"
	@touch $@

setup: .venv/.ready  ## the environment, in .venv

setup-hashed: pyproject.toml constraints.txt constraints-hashes.txt  ## the same, each package checked against constraints-hashes.txt before it is installed
	$(PYTHON) -m venv .venv
	mkdir -p build
	$(BIN)/python deploy/locked_requirements.py hatchling editables packaging pathspec pluggy tomlkit trove-classifiers > build/locked-backend.txt
	$(BIN)/python -m pip install --quiet --require-hashes --no-deps --requirement build/locked-backend.txt
	$(BIN)/python -m pip install --quiet --no-deps --constraint constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet --dry-run --report build/report.json --no-build-isolation --constraint constraints.txt --editable ".[dev]"
	$(BIN)/python deploy/locked_requirements.py build/report.json > build/locked.txt
	$(BIN)/python -m pip install --quiet --require-hashes --no-deps --requirement build/locked.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch .venv/.ready

hashes:  ## rewrite constraints-hashes.txt: the hashes of all files of each pinned package, from the index that pip is set up with
	rm -rf build/hashes
	$(PYTHON) -m venv build/hashes
	build/hashes/bin/python -m pip install --quiet uv
	echo "# Hashes of the packages of constraints.txt, but torch's, whose build depends on the machine. Written by \`make hashes\`." > build/hashes.txt
	grep -v '^torch==' constraints.txt | UV_DEFAULT_INDEX="$${UV_DEFAULT_INDEX:-$$($(PYTHON) -m pip config get global.index-url 2>/dev/null || true)}" \
		build/hashes/bin/uv pip compile --quiet --no-deps --generate-hashes --no-header --no-annotate --no-emit-index-url --python-version 3.11 - >> build/hashes.txt
	mv build/hashes.txt constraints-hashes.txt
	rm -rf build/hashes

sbom: .venv/.ready  ## the packages in .venv with versions and licenses, as CycloneDX, in build/sbom.json
	rm -rf build/sbom
	$(PYTHON) -m venv build/sbom
	build/sbom/bin/python -m pip install --quiet 'cyclonedx-bom>=7,<8'
	build/sbom/bin/cyclonedx-py environment --output-reproducible --pyproject pyproject.toml --output-format JSON --output-file build/sbom.json $(BIN)/python
	rm -rf build/sbom

data: | .venv/.ready
	$(BIN)/python examples/digits/prepare.py data

digits/data: | .venv/.ready
	if [ -d digits ]; then $(BIN)/python examples/digits/prepare.py $@; else $(BIN)/python examples/digits/create_workspace.py digits; fi

run: .venv/.ready | digits/data  ## run the whole pipeline on the embedded handwritten digits, in digits/
	$(BIN)/seedling run --workspace digits

repro: .venv/.ready | data  ## the same stages by DVC alone, in this folder; another type of processor changes dvc.lock
	$(BIN)/dvc repro

ui: .venv/.ready  ## Prefect's UI on http://127.0.0.1:4200, with past runs
	$(BIN)/prefect server start

# Three processes on 2 cores, since many tests wait for another process.
test: .venv/.ready  ## the fast tests, two to three minutes on 2 cores
	$(BIN)/pytest -n 3 --dist loadfile -m "not slow and not soak"

test-slow: .venv/.ready  ## the slow tests, of a second and more: short pipelines, a real Prefect server, a real browser
	$(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder -m "slow and not soak" --durations 25

soak: .venv/.ready  ## tests of many minutes, before a release: deployed topology, runs by the clock, a Dask cluster, kills, edits during runs, load on the server, intervals over many draws
	$(BIN)/pytest -m soak

FUZZ_SECONDS ?= 600
FUZZERS := $(wildcard tests/hostile/fuzz_*.py)

fuzz: .venv/.ready  ## feed changed and broken inputs to the readers of tables, params, logs, images and requests, for FUZZ_SECONDS (600) in all
	@for file in $(FUZZERS); do \
		echo "$$file"; \
		FUZZ_SECONDS=$$(( $(FUZZ_SECONDS) / $(words $(FUZZERS)) )) PYTHONPATH=$(CURDIR):$(CURDIR)/tests $(BIN)/python $$file || exit 1; \
	done

newest:  ## weekly: run the server, schedule and deploy tests with the newest versions that pyproject.toml allows, in a throw-away environment
	rm -rf build/newest
	$(PYTHON) -m venv build/newest
	grep '^torch==' constraints.txt > build/newest/torch.txt
	build/newest/bin/python -m pip install --quiet --constraint build/newest/torch.txt --editable ".[dev]"
	build/newest/bin/python -m pip list | grep -iE '^(prefect|fastapi|starlette|sqlalchemy|uvicorn|dvc|great)'
	PATH="$(CURDIR)/build/newest/bin:$$PATH" build/newest/bin/pytest tests/flows/test_temporary_server.py tests/flows/test_scheduling.py tests/flows/test_prefect.py tests/flows/test_monitoring_in_prefect.py
	rm -rf build/newest

check: .venv/.ready  ## ruff, typos and strict types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/typos
	$(BIN)/mypy

docs: .venv/.ready  ## the documentation as a site, in build/site; every warning is an error
	NO_MKDOCS_2_WARNING=1 PYTHONPATH=$(CURDIR) $(BIN)/python -m mkdocs build --strict

bench: .venv/.ready  ## eight of the benchmarks (the others: the commands on their pages in docs/benchmarks/); writes benchmarks/results/*.csv; needs DATA=folder of sets and BACKBONE=encoder of images
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[bench]"
	$(BIN)/python benchmarks/digits.py --draws 5
	$(BIN)/python benchmarks/scale.py
	$(BIN)/python benchmarks/few_labels.py --data $(DATA) --backbone $(BACKBONE)
	$(BIN)/python benchmarks/cost.py --data $(DATA) --backbone $(BACKBONE)
	$(BIN)/python benchmarks/label_noise.py --data $(DATA) --backbone $(BACKBONE) --effort quick
	$(BIN)/python benchmarks/encoding.py --data $(DATA) --backbone $(BACKBONE) --rows 600 --repeats 3
	$(BIN)/python benchmarks/overhead.py
	$(BIN)/python benchmarks/storage.py

OUTPUTS := data generations models reports quarantine $(addprefix .seedling/,gx runs partial unfinished seconds)

clean:  ## delete data, generations, models and reports, here and in digits/, and builds; keep the environment, caches and the log of test-set evaluations
	rm -rf $(OUTPUTS) $(addprefix digits/,$(OUTPUTS)) build dist
