# Every target that needs packages makes .venv first; a second call finds it ready.
PYTHON ?= python3
DATA ?= digits
OUT ?= runs/demo
PHOTOS ?= photos

BIN := .venv/bin
READY := .venv/.installed
NATIVE := .venv/.native
BROWSER := .venv/.browser
AUDIT := .venv/audit/bin/pip-audit
PINS := requirements/constraints.txt

.PHONY: help setup demo test check audit native-sanitize bench-native parity endure bench prove-cards docs clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /: /'

setup: $(READY) $(NATIVE)  ## make .venv and install everything, with the pinned versions

# torch on its own first, so that a CPU build that pip is configured to find is taken before anything asks for torch
$(READY): pyproject.toml $(PINS) scripts/torchvision_hook.py
	@echo "Setting up .venv: a minute or two"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -c $(PINS) torch
	$(BIN)/python -m pip install --quiet -c $(PINS) --no-deps torchvision
	$(BIN)/python -m pip install --quiet -c $(PINS) -e ".[test]"
	$(BIN)/python scripts/torchvision_hook.py
	touch $@

# The native engine needs a C++ compiler; without one everything works, with the other engines
$(NATIVE): $(READY) native/pyproject.toml native/CMakeLists.txt $(wildcard native/src/* native/src/kernels/* native/effnet_native/*)
	@$(BIN)/python -m pip install --quiet --force-reinstall --no-deps ./native \
	  || echo "effnet-native was not built (is there a C++ compiler?): networks run on the other engines, more slowly"
	touch $@

demo: $(READY) $(NATIVE)  ## train, evaluate, predict, explain: DATA=folder for your own photos, OUT=folder for the results
	@DATA="$(DATA)" OUT="$(OUT)" $(BIN)/python scripts/demo.py

# Asked for once, not at every test: where there is no network, asking takes long
$(BROWSER): $(READY)
	$(BIN)/python -m tests.serve.chromium
	touch $@

test: $(READY) $(NATIVE) $(BROWSER)  ## the tests, as many at once as there are cores
	$(BIN)/pytest -n auto --dist worksteal

check: $(READY)  ## style, types, bandit, words, and whether the generated documents are up to date
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/bandit -q -c pyproject.toml -r effnet
	$(BIN)/python scripts/check_words.py
	$(BIN)/python docs/make.py --check

# In an environment of its own: its packages are none of ours
$(AUDIT):
	$(PYTHON) -m venv .venv/audit
	.venv/audit/bin/python -m pip install --quiet pip-audit

audit: $(AUDIT)  ## known vulnerabilities of the pinned packages: needs pypi.org itself, a mirror does not know them
	$(AUDIT) --strict --disable-pip --no-deps -r $(PINS)

# Random plans in C++ alone, so that the sanitizers see nothing but the engine
native-sanitize:  ## the native engine under AddressSanitizer, UndefinedBehaviorSanitizer and ThreadSanitizer
	for kind in address,undefined thread; do \
	  cmake -S native -B build/native-$${kind%%,*} -DEFFNET_STRESS=ON -DEFFNET_SANITIZE=$$kind -DCMAKE_CXX_FLAGS_RELEASE=-O1 && \
	  cmake --build build/native-$${kind%%,*} && build/native-$${kind%%,*}/stress 100 || exit 1; \
	done

bench-native: $(READY) $(NATIVE)  ## the native engine against onnxruntime, OpenVINO and LiteRT, interleaved
	$(BIN)/python benchmarks/native.py

parity: $(READY)  ## the whole family against every ecosystem's own networks: long
	$(BIN)/pytest -m sweep tests/parity

endure: $(READY)  ## damaged files and requests by the thousand, kills and full disks by the dozen: an hour
	$(BIN)/pytest -m sweep tests --ignore=tests/parity

bench: $(READY)  ## speed against the peers on this machine: PHOTOS=folder with train/ and val/
	$(BIN)/python benchmarks/engines.py $(PHOTOS)
	$(BIN)/python benchmarks/cli_startup.py $(PHOTOS)
	$(BIN)/python benchmarks/table4.py
	$(BIN)/python benchmarks/eager_vs_timm.py
	$(BIN)/python benchmarks/load_weights.py
	$(BIN)/python benchmarks/training_loader.py $(PHOTOS)
	$(BIN)/python benchmarks/train_vs_timm.py photos $(PHOTOS)
	$(BIN)/python benchmarks/serving.py $(PHOTOS)
	$(BIN)/python benchmarks/fit_latency.py

prove-cards: $(READY)  ## download published weights and compare them with the catalog: CARDS="b0 lite" for some of them
	$(BIN)/python scripts/prove_cards.py $(CARDS)

docs: $(READY)  ## write the generated parts of the documents
	$(BIN)/python docs/make.py
	$(BIN)/python docs/figures.py

clean:  ## remove caches and build outputs; .venv and runs stay
	rm -rf build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find effnet tests docs benchmarks scripts -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
