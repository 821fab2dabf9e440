# make demo       everything from nothing: environment, language model, LIFT (and its matrix) and
#                 CLIP trained and compared
# make test       the same environment with the test requirements, then the whole suite
# make test-fast  only the tests that need no other package, no download and no patience
# make lint       the style of the code: ruff, with the settings in pyproject.toml
# make course     the course for a class: hand-outs, graders, the teacher's notes, in build/course
# make course-check  the course's grader on the reference, on nothing, and on every wrong solution
# make clean      remove the environment and the demo's runs
#
# On Linux PyPI's torch is the CUDA build (several GB). Without a GPU, save the download with
#   make demo PIP_FLAGS="--extra-index-url https://download.pytorch.org/whl/cpu"

PYTHON ?= python3
VENV ?= .venv
PIP_FLAGS ?=

demo: $(VENV)/requirements
	rm -rf runs/demo
	$(VENV)/bin/python train.py --out runs/demo/lift
	$(VENV)/bin/python train.py --method lift_ridge --init-from runs/demo/lift --out runs/demo/lift_ridge
	$(VENV)/bin/python train.py --method clip --out runs/demo/clip
	$(VENV)/bin/python eval.py runs/demo/lift runs/demo/lift_ridge runs/demo/clip

test: $(VENV)/requirements-test
	$(VENV)/bin/python -m pytest -n 2 --dist worksteal

test-fast: $(VENV)/requirements-test-fast
	$(VENV)/bin/python -m pytest -n 2 --dist worksteal -m "not reference and not slow and not real_llm"

lint: $(VENV)/requirements-test-fast
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

# Another choice of units, or another seed: python -m docs.course.make --units 1,2,5 --seed 2027
course: $(VENV)/requirements
	$(VENV)/bin/python -m docs.course.make

course-check: $(VENV)/requirements
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m docs.course.verify

clean:
	rm -rf $(VENV) runs/demo build

# $(VENV)/NAME is a mark left when NAME.txt has been installed
$(VENV)/%: %.txt requirements.txt
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) -r $<
	touch $@

# requirements-test.txt begins with those of the fast tests
$(VENV)/requirements-test: requirements-test-fast.txt

.PHONY: demo test test-fast lint course course-check clean
