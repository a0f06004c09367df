"""The whole application."""

from service.app import create_app
from service.config import Config


def test_two_applications_share_nothing(settings: Config) -> None:
    one, two = create_app(settings), create_app(settings)
    assert one.extensions["pool"] is not two.extensions["pool"]
    assert one.extensions["contract"] == two.extensions["contract"]
