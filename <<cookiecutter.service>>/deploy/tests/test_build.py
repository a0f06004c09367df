"""The build pushes one image of a commit into the registry, with a stand-in for docker."""

import pytest

from deploy.tests.cloud import ACCOUNT, REGION, Cloud
from deploy.tests.commands import NAME, Checkout, Ran

# moto's CloudFormation passes over CodeDeploy, scaling, capacity providers and rules of security groups.
pytestmark = pytest.mark.filterwarnings("ignore:Tried to parse")


def test_build_pushes_one_image_under_a_unique_tag_and_says_its_digest(
    checkout: Checkout, cloud: Cloud, capsys: pytest.CaptureFixture[str]
) -> None:
    ran = Ran(capsys, "build")
    assert (ran.status, ran.err) == (0, "")
    tag = f"build-{checkout.commit()[:12]}"
    [image] = cloud.client("ecr").describe_images(repositoryName=NAME)["imageDetails"]
    assert (image["imageTags"], image["imageDigest"]) == ([tag], ran.steps[-1]["digest"])
    login, _, create, build = checkout.docker()
    assert create == ["buildx", "create", "--name=deploy-release", "--driver=docker-container"]
    registry = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com"
    assert login == ["login", "--username", "AWS", "--password-stdin", registry]
    assert build[:2] == ["buildx", "build"]
    assert {
        "--push",
        "--builder=deploy-release",
        "--platform=linux/arm64",
        "--sbom=true",
        "--provenance=mode=max",
        f"--build-arg=RELEASE={tag}",
        f"--tag={registry}/{NAME}:{tag}",
    } <= set(build)
    assert f"--build-arg=REVISION={checkout.commit()}" in build


@pytest.mark.parametrize(
    ("variable", "tag"),
    [(("CODEBUILD_BUILD_ID", "orders:0f3c-11"), "build-0f3c-11"), (("GITHUB_RUN_ID", "1234567"), "build-1234567")],
)
@pytest.mark.usefixtures("checkout")
def test_the_tag_has_the_id_of_the_run_that_builds(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, variable: tuple[str, str], tag: str
) -> None:
    monkeypatch.setenv(*variable)
    assert Ran(capsys, "build").steps[-1]["tag"] == tag


def test_a_build_that_is_repeated_takes_the_image_that_there_is(
    checkout: Checkout, capsys: pytest.CaptureFixture[str]
) -> None:
    first = Ran(capsys, "build")
    calls = len(checkout.docker())
    again = Ran(capsys, "build")
    assert (first.status, again.status) == (0, 0)
    assert again.steps[-1] == {**first.steps[-1], "status": "was there"}
    assert [call[0] for call in checkout.docker()[calls:]] == []


def test_a_dirty_tree_is_refused(checkout: Checkout, capsys: pytest.CaptureFixture[str]) -> None:
    (checkout.folder / "new.txt").touch()
    ran = Ran(capsys, "build")
    assert (ran.status, ran.err) == (
        1,
        "deploy.release: the tree is dirty, so no commit says what the image is made of: ?? new.txt\n",
    )
    assert not checkout.log.exists()


def test_a_build_that_fails_ends_with_its_status(
    checkout: Checkout, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    del checkout
    monkeypatch.setenv("DOCKER_FAILS", "1")
    ran = Ran(capsys, "build")
    assert (ran.status, ran.err) == (1, "deploy.release: docker buildx build ended with status 17\n")


def test_a_missing_repository_says_which_stack_makes_it(
    checkout: Checkout, cloud: Cloud, capsys: pytest.CaptureFixture[str]
) -> None:
    del checkout
    cloud.client("ecr").delete_repository(repositoryName=NAME)
    assert f"deploy the stack {NAME}-images first" in Ran(capsys, "build").err
