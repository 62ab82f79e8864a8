"""The states in which adb lists a device, and what the user can do about each."""

from __future__ import annotations

ADVICE = {
    "unauthorized": 'unlock the phone and accept "Allow USB debugging?"; replug it if it does not ask',
    "authorizing": "wait a moment, then accept the prompt on the phone",
    "connecting": "wait a moment, then try again",
    "offline": "plug it in again, or `adb reconnect offline`; over Wi-Fi `adb connect ADDRESS` once more",
    "no permissions": "this computer may not open the USB device: add a udev rule (package "
    "android-sdk-platform-tools-common), then plug it in again",
    "recovery": "start Android: `adb reboot`",
    "sideload": "start Android: `adb reboot`",
    "bootloader": "start Android: `fastboot reboot`",
}
NO_DEVICE = (
    "Turn on USB debugging (Settings > System > Developer options), plug the phone in and accept the prompt; "
    "over Wi-Fi `adb connect ADDRESS:PORT`. Linux needs a udev rule for it (package "
    "android-sdk-platform-tools-common)."
)


def adb_state_advice(state: str) -> str:
    """Return what the user can do about a device in this state; empty if the device is usable."""
    known = (text for start, text in ADVICE.items() if state.startswith(start))
    return "" if state == "device" else next(known, "plug it in again, or restart it")
