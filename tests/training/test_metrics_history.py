from geco_ext.training.run_folder import MetricsHistory, read_history


def record(history, steps):
    for step in steps:
        history.append({"step": step, "rmse": 1 / step})
    history.close()


def test_records_come_back_exactly(tmp_path):
    file = tmp_path / "metrics.csv"
    record(MetricsHistory(file, 0), [1, 3, 7])
    assert read_history(file) == {"step": [1, 3, 7], "rmse": [1.0, 1 / 3, 1 / 7]}


def test_resuming_drops_records_of_steps_that_will_come_again(tmp_path):
    file = tmp_path / "metrics.csv"
    record(MetricsHistory(file, 0), [1, 2, 3, 4, 5])
    record(MetricsHistory(file, 3), [4, 5, 6])
    assert read_history(file)["step"] == [1, 2, 3, 4, 5, 6]
    straight = tmp_path / "straight.csv"
    record(MetricsHistory(straight, 0), [1, 2, 3, 4, 5, 6])
    assert file.read_bytes() == straight.read_bytes()


def test_half_a_line_of_a_killed_process_is_left_out(tmp_path):
    file = tmp_path / "metrics.csv"
    record(MetricsHistory(file, 0), [1, 2])
    file.write_text(file.read_text() + "3")
    assert read_history(file)["step"] == [1, 2]
    record(MetricsHistory(file, 2), [3])
    assert read_history(file)["step"] == [1, 2, 3]


def test_a_new_run_has_no_history(tmp_path):
    assert read_history(tmp_path / "metrics.csv") == {}
