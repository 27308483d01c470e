# Each target installs what it needs first: see tools/run.py.
# The demo asks the model something of its own; `make demo ASK="Who wrote Hamlet?"` asks something else.
PYTHON ?= python3
export ASK
export PYTHONPATH := $(CURDIR)/generator:$(CURDIR)/tests

.PHONY: demo test test-quick test-pythons lint bench fuzz
demo test test-quick test-pythons lint bench fuzz:
	@$(PYTHON) tools/run.py $@
