"""A page to try the contract out, at `/docs` if `DOCS` is set: Swagger UI, served from a Python package."""

from importlib import resources

from flask import Blueprint, Response

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>The contract</title>
<link rel="stylesheet" href="docs/assets/css/swagger-ui.css">
<link rel="icon" href="docs/assets/images/swagger.svg">
<div id="page"></div>
<script src="docs/assets/js/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
"""

START = 'SwaggerUIBundle({url: "openapi.json", dom_id: "#page", deepLinking: true, validatorUrl: null})\n'
"""A file of its own, so that the policy need not allow scripts in the page."""

POLICY = (
    "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; "  # its style sheet holds the icons
    "connect-src 'self'"  # for the contract, and for what is tried out
)
"""What a browser may do for the page. https://www.w3.org/TR/CSP3/"""


def page() -> Blueprint:
    """Return the routes of the page. Its links are relative, so they work under any prefix."""
    assets = resources.files("flask_openapi3_swagger") / "templates" / "swagger"  # imported here, only if it is wanted
    routes = Blueprint("docs", __name__, static_folder=str(assets), static_url_path="/assets")

    @routes.get("")
    def docs() -> Response:
        """Return the page."""
        return Response(PAGE, content_type="text/html; charset=utf-8", headers={"Content-Security-Policy": POLICY})

    @routes.get("/start.js")
    def start() -> Response:
        """Return the script that starts the page."""
        return Response(START, content_type="text/javascript; charset=utf-8")

    return routes
