# The commands people type. PYTHON=/path/to/python3.11 chooses which Python makes .venv.
.PHONY: run test faults format

run:
	@sh tools/venv requirements.txt
	@exec .venv/bin/python -m mcs.run

test:
	@sh tools/venv requirements-dev.txt
	@exec .venv/bin/python tools/checks.py

format:
	@sh tools/venv requirements-dev.txt
	@.venv/bin/ruff format .
	@.venv/bin/ruff check --fix .

faults:
	@sh tools/venv requirements-dev.txt
	@exec .venv/bin/python tools/faults.py
