"""The app's property lists and project description are well-formed, complete and consistent."""

from __future__ import annotations

import plistlib
import re
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.devices.ios.conftest import DEMO, PACKAGE

if TYPE_CHECKING:
    from tests.devices.ios.swift_toolchain import SwiftToolchain

APP = DEMO / "App"
LISTS = ["Info.plist", "MolkvDemoApp.entitlements", "PrivacyInfo.xcprivacy"]
MANIFEST = (DEMO / "Package.swift").read_text(encoding="utf-8")


def property_list(name: str) -> dict[str, Any]:
    content: dict[str, Any] = plistlib.loads((APP / name).read_bytes())
    return content


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((APP / "project.yml").read_text(encoding="utf-8"))
    return content


@pytest.fixture(scope="module")
def app(project: dict[str, Any]) -> dict[str, Any]:
    target: dict[str, Any] = project["targets"][project["name"]]
    return target


def test_plutil_finds_nothing_in_the_property_lists(swift: SwiftToolchain) -> None:
    output = swift.done("plutil", "-lint", "--", *(PACKAGE / "App" / name for name in LISTS))
    assert output.count("OK") == len(LISTS)


def test_plutil_objects_to_what_is_none(swift: SwiftToolchain) -> None:
    output = swift.run("plutil", "-lint", "--", PACKAGE / "Package.swift").stdout
    assert "not in the correct format" in output
    assert "OK" not in output


def test_the_information_of_the_app_is_complete(app: dict[str, Any]) -> None:
    information = property_list("Info.plist")
    needed = {
        *("CFBundleIdentifier", "CFBundleExecutable", "CFBundleName", "CFBundlePackageType"),
        *("CFBundleVersion", "CFBundleShortVersionString", "CFBundleInfoDictionaryVersion"),
        *("LSRequiresIPhoneOS", "UILaunchScreen", "UISupportedInterfaceOrientations"),
        *("UISupportedInterfaceOrientations~ipad", "ITSAppUsesNonExemptEncryption"),
        # So that Finder and the Files app can put bundles where the app imports them from.
        *("UIFileSharingEnabled", "LSSupportsOpeningDocumentsInPlace"),
    }
    assert needed <= information.keys()
    assert information["UIRequiredDeviceCapabilities"] == ["arm64"]
    settings = app["settings"]["base"]
    variables = re.findall(r"\$\((\w+)\)", (APP / "Info.plist").read_text(encoding="utf-8"))
    own = {"EXECUTABLE_NAME", "PRODUCT_BUNDLE_PACKAGE_TYPE"}  # Xcode's
    assert set(variables) <= own | settings.keys()


def test_no_entitlement_for_more_virtual_memory_is_asked_for() -> None:
    keys = set(property_list("MolkvDemoApp.entitlements"))
    assert keys == {"com.apple.developer.kernel.increased-memory-limit"}


def test_the_reasons_for_what_apple_wants_reasons_for_are_given() -> None:
    kinds = {
        entry["NSPrivacyAccessedAPIType"]: entry["NSPrivacyAccessedAPITypeReasons"]
        for entry in property_list("PrivacyInfo.xcprivacy")["NSPrivacyAccessedAPITypes"]
    }
    sources = "".join(file.read_text("utf-8") for file in (DEMO / "Sources").rglob("*.swift"))
    for call, kind in [("fstat(", "FileTimestamp"), ("systemFreeSize", "DiskSpace")]:
        assert call in sources
        assert kinds[f"NSPrivacyAccessedAPICategory{kind}"]
    assert len(kinds) == 2
    assert "UserDefaults" not in sources


def test_the_project_names_files_and_products_that_exist(
    project: dict[str, Any], app: dict[str, Any]
) -> None:
    (package,) = project["packages"].values()
    assert (APP / package["path"] / "Package.swift").is_file()
    products = re.findall(r'\.library\(name: "(\w+)"', MANIFEST)
    assert sorted(dependency["product"] for dependency in app["dependencies"]) == sorted(products)
    paths = {source["path"] for source in app["sources"]}
    assert {path for path in paths if not (APP / path).exists()} <= {"DefaultBundle"}
    assert "DefaultBundle" in paths
    assert '"DefaultBundle"' in (DEMO / "Sources/MolkvDemo/AppModel.swift").read_text("utf-8")
    settings = app["settings"]
    assert (APP / settings["base"]["INFOPLIST_FILE"]).is_file()
    assert (APP / settings["configs"]["Release"]["CODE_SIGN_ENTITLEMENTS"]).is_file()
    # Two modules of one name would not link.
    assert settings["base"]["PRODUCT_MODULE_NAME"] not in products


def test_project_and_package_agree(project: dict[str, Any], app: dict[str, Any]) -> None:
    (version,) = re.findall(r"\.iOS\(\.v(\d+)\)", MANIFEST)
    assert project["options"]["deploymentTarget"]["iOS"] == f"{version}.0"
    (tools,) = re.findall(r"swift-tools-version: ([\d.]+)", MANIFEST)
    assert app["settings"]["base"]["SWIFT_VERSION"] == tools


def test_every_control_and_figure_has_words_for_voice_over() -> None:
    # Images that say nothing are hidden, sliders and figures have a label and a value.
    screens = {file.name: file.read_text("utf-8") for file in (DEMO / "Sources").rglob("*.swift")}
    source = "".join(screens[name] for name in screens if name.endswith("Screen.swift"))
    for control, words in [("Slider(", "accessibilityLabel"), ("Image(", "accessibilityHidden")]:
        places = [match.end() for match in re.finditer(re.escape(control), source)]
        assert places
        for place in places:
            assert words in source[place : place + 200], control


def test_texts_have_styles_that_grow_and_colours_that_turn_dark() -> None:
    for file in (DEMO / "Sources" / "MolkvDemo").glob("*.swift"):
        source = file.read_text("utf-8")
        assert not re.search(r"\.system\(size:|Color\.(black|white)|Color\(red:", source), file
