# Two commands do everything on a fresh machine with Python and make; both set up .venv first.

PYTHON ?= python3
BIN := .venv/bin
# Modules are compiled when they are first imported: compiling all of them here takes longer than installing them.
PIP_FLAGS := --quiet --disable-pip-version-check --no-compile --constraint requirements.txt

.PHONY: demo test proofs fuzz mutants bench-smoke setup clean

setup: .venv/.installed

# The pinned versions of requirements.txt apply to whatever extra is installed.
.venv/.installed: pyproject.toml requirements.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install $(PIP_FLAGS) --editable .
	touch $@

.venv/.tested: .venv/.installed
	$(BIN)/python -m pip install $(PIP_FLAGS) --editable '.[test]'
	touch $@

# Pre-trains SimFLE and BYOL alone side by side on generated faces, probes, prints the table.
demo: .venv/.installed
	$(BIN)/python -m simfle_jax.demo --workdir runs/demo

# Two files at a time; those that start several processes come first, so that none of them is left for the end.
test: .venv/.tested
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -m 'not slow and not cluster' -n 2 --dist loadfile \
	    tests/distributed tests/faults tests/buckets tests/fuzz tests/parity tests/integration tests/unit

# The long repetitions of what `make test` shows once.
proofs: .venv/.tested
	$(BIN)/python -m pytest -m slow
	$(MAKE) fuzz MINUTES=5

# Damaged files of all kinds, for so many minutes, from this seed (docs/testing.md): make fuzz MINUTES=60 SEED=7
MINUTES ?= 30
SEED ?= 0
fuzz: .venv/.tested
	$(BIN)/python tests/fuzz/fuzz.py --minutes $(MINUTES) --seed $(SEED)

# Breaks the program in many places, one after another: some test must fail each time (docs/testing.md).
mutants: .venv/.tested
	$(BIN)/python tests/mutants/run.py

# Two minutes of ratios of speed, beside the committed ones.
bench-smoke: .venv/.tested
	$(BIN)/python benchmarks/smoke.py

clean:
	rm -rf .venv runs build *.egg-info
