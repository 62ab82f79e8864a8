"""The table of faults in the guide names what was tried: each row has the tests that try it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]
TRIED: Mapping[str, tuple[str, ...]] = {
    "the bench is killed (`kill -9`, power)": (
        "harness/test_saved_launches.py::test_a_run_killed_before_its_results_were_stored_repeats_none",
        "harness/test_saved_launches.py::test_every_finished_launch_is_kept",
    ),
    "killed while storing": ("bench/test_bench_storing.py::test_a_kill_at_any_moment_leaves_out_valid",),
    "Ctrl-C, SIGTERM, SIGHUP": (
        "harness/test_end_to_end.py::test_a_signal_kills_the_runner_and_restores_settings",
        "harness/test_lease.py::test_every_request_to_end_cleans_up",
    ),
    "this computer restarts while it measures": (
        "harness/test_phone_settings.py::test_a_crash_of_this_machine_is_handled_at_the_next_start",
        "harness/test_lease.py::test_a_stale_lease_keeps_nobody_out",
    ),
    "kept launches are damaged or six hours old": (
        "harness/test_saved_launches.py::test_damaged_launches_are_measured_again",
        "harness/test_saved_launches.py::test_an_old_run_is_not_continued",
    ),
    "the profiler fails": ("harness/test_one_device.py::test_a_profile_that_fails_costs_no_launch",),
    "two benches on one OUT": (
        "bench/test_bench_storing.py::test_two_benches_that_began_with_the_same_manifest_lose_nothing",
    ),
    "two benches, or a night, on one phone": (
        "harness/test_lease.py::test_a_second_run_on_this_computer_is_refused",
        "harness/test_lease.py::test_the_wait_ends_when_the_phone_is_free",
    ),
    "another computer uses the phone": (
        "harness/test_lease.py::test_a_run_on_another_computer_is_refused",
        "harness/test_lease.py::test_a_run_that_lost_its_lease_stops",
    ),
    "the phone appears at another address": (
        "harness/test_physical_phones.py::test_one_phone_at_three_addresses_is_one_device",
        "harness/test_physical_phones.py::test_a_new_address_is_the_same_device",
    ),
    "cable or Wi-Fi lost in a launch": (
        "harness/test_one_device.py::test_only_an_interrupted_launch_is_repeated",
        "harness/test_one_device.py::test_a_third_lost_connection_fails_the_task",
        "harness/test_end_to_end.py::test_offline_in_a_push_and_back",
    ),
    "a connection that is too slow": (
        "harness/test_end_to_end.py::test_a_connection_that_is_too_slow_ends_at_its_deadlines",
    ),
    "gone for good": ("harness/test_end_to_end.py::test_gone_in_a_launch",),
    "the phone restarts": ("harness/test_end_to_end.py::test_a_reboot_in_a_launch",),
    "adb's server restarts": (
        "harness/test_physical_phones.py::test_an_address_that_adb_has_forgotten_is_connected_to",
    ),
    "unauthorised, offline": (
        "harness/test_end_to_end.py::test_unauthorised",
        "harness/test_end_to_end.py::test_offline_for_good",
    ),
    "the phone's disk is full": (
        "harness/test_end_to_end.py::test_a_full_disk",
        "harness/test_real_phones.py::test_old_files_on_the_phone_are_deleted",
    ),
    "the runner is killed (memory)": ("harness/test_end_to_end.py::test_a_killed_runner",),
    "the runner crashes, hangs, may not be executed": (
        "harness/test_end_to_end.py::test_a_hang",
        "harness/test_real_phones.py::test_a_fault_names_its_cause_and_its_launch",
        "harness/test_real_phones.py::test_a_crash_is_explained_by_its_exit_code",
        "harness/test_real_phones.py::test_the_devices_log_is_kept_with_a_failure",
    ),
    "perfetto is missing or refuses": ("harness/test_trace.py::test_a_phone_without_a_trace_says_why",),
    "outputs of one input change, within a launch or between launches": (
        "harness/test_one_device.py::test_one_input_is_computed_several_times",
        "bench/test_bench.py::test_outputs_that_change_from_launch_to_launch_are_a_problem",
    ),
    "settings are refused (MIUI)": (
        "harness/test_real_phones.py::test_refused_settings_are_told_and_stop_nothing",
    ),
    "dark screen, parked cores, unfinished start": (
        "harness/test_real_phones.py::test_a_phone_that_starts_or_sleeps_is_not_ready",
        "harness/test_real_phones.py::test_parked_cores_are_no_contradiction",
    ),
    "battery low, power saver, hot, thermal status overridden": (
        "harness/test_end_to_end.py::test_not_ready",
        "harness/test_readiness.py::test_each_condition_has_its_gate",
    ),
    "a temperature is `NaN` or missing": (
        "harness/test_real_phones.py::test_a_sensor_without_a_value_hides_no_other",
    ),
    "throttling, heat, a slower canary": (
        "harness/test_end_to_end.py::test_throttling_is_flagged",
        "harness/test_end_to_end.py::test_a_failed_canary_is_a_flag",
        "nightly/test_night_judging.py::test_what_was_slower_and_unstable_is_measured_again",
    ),
    "the history's database is away": (
        "history/test_spool.py::test_a_database_that_is_away_loses_nothing",
        "history/test_spool.py::test_a_restart_of_the_server_ends_no_night",
    ),
    "the machine of a night restarts, also under another name": (
        "nightly/test_killed.py::test_a_night_that_is_killed_twice_ends_complete",
        "nightly/test_journal.py::test_a_night_keeps_the_name_of_its_machine",
        "nightly/test_units.py::test_systemd_accepts_the_units",
    ),
}
"""A row of the table -> the tests that try the fault."""


def test_the_table_lists_every_fault_that_is_tried() -> None:
    """Docs and tests name the same faults, and each row says what is seen and what is lost."""
    guide = (ROOT / "docs/guides/phones.md").read_text()
    table = guide[guide.index("| fault |") : guide.index("## What only a real phone")]
    rows = [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in table.splitlines()
        if line.startswith("|")
    ]
    assert [row[0] for row in rows[2:]] == list(TRIED)
    assert all(seen and lost for _, seen, lost in rows[2:])


def test_each_tried_fault_has_its_tests() -> None:
    """No test that the table rests on was renamed or deleted."""
    for tests in TRIED.values():
        for test in tests:
            file, name = test.split("::")
            assert f"def {name}(" in (ROOT / "tests" / file).read_text(), test
