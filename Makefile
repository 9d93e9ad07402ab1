# The commands people type. PYTHON=/path/to/python3.11 chooses which Python makes .venv.
.PHONY: run test bench faults format

# Whatever the shell says: each of many processes would compile all that it imports, each time.
unexport PYTHONDONTWRITEBYTECODE

run:
	@sh tools/venv requirements.txt
	@exec .venv/bin/python -m mcs.run

test:
	@sh tools/venv requirements-dev.txt
	@exec .venv/bin/python tools/checks.py

bench:
	@sh tools/venv requirements-dev.txt
	@.venv/bin/python -m benchmarks.send
	@.venv/bin/python -m benchmarks.throttle
	@.venv/bin/python -m benchmarks.memory

format:
	@sh tools/venv requirements-dev.txt
	@.venv/bin/ruff format .
	@.venv/bin/ruff check --fix .

faults:
	@sh tools/venv requirements-dev.txt
	@exec .venv/bin/python tools/faults.py
