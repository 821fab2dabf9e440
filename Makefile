# make demo   everything from nothing: environment, language model, LIFT and CLIP trained and compared
# make test   the same environment with the test requirements, then the whole suite
#
# On Linux PyPI's torch is the CUDA build (several GB). Without a GPU, save the download with
#   make demo PIP_FLAGS="--extra-index-url https://download.pytorch.org/whl/cpu"

PYTHON ?= python3
VENV ?= .venv
PIP_FLAGS ?=

demo: $(VENV)/requirements
	rm -rf runs/demo
	$(VENV)/bin/python train.py --out runs/demo/lift
	$(VENV)/bin/python train.py --method clip --out runs/demo/clip
	$(VENV)/bin/python eval.py runs/demo/lift runs/demo/clip

test: $(VENV)/requirements-test
	$(VENV)/bin/python -m pytest

# $(VENV)/NAME is a mark left when NAME.txt has been installed
$(VENV)/%: %.txt requirements.txt
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) -r $<
	touch $@

clean:
	rm -rf $(VENV) runs/demo

.PHONY: demo test clean
