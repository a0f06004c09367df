"""Say what to do next, and do nothing."""

import json

ANSWERS = json.loads(r"""<< cookiecutter | tojson >>""")

print(f"""
{ANSWERS["service"]} is ready.

  cd {ANSWERS["service"]}
  git init && git add . && git commit -m "A new service"
  make run      # serve on http://127.0.0.1:8000
  make test     # style, types, tests, and the code of deployments
""")
