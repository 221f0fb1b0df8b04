"""Test DVC commands in a fresh clone with a small data set and network."""

import json
import re

import pandas as pd
import pytest
import yaml

pytestmark = pytest.mark.slow

METRICS = {
    "ingest": {"images", "classes"},
    "clean": {
        *("outliers", "duplicates", "near_duplicates", "conflicts", "after_outliers"),
        *("after_outliers_classes", "kept", "kept_classes"),
    },
    "split": {"train", "validation", "test", "shared_groups"},
    "balance": {"before", "synthetic", "after"},
    "train": {"epochs", "best_epoch", "best_validation_accuracy", "parameters", "trainable_parameters"},
}
SCORES = {"accuracy", "accuracy_low", "accuracy_high", "balanced_accuracy", "f1", "roc_auc", "log_loss", "recall"}


def metrics(project, name):
    return json.loads((project.folder / f"metrics/{name}.json").read_text())


def stages_run(output):
    return re.findall(r"Running stage '(\w+)'", output)


def test_repro_writes_the_fixed_metric_keys(project):
    for name, keys in METRICS.items():
        assert keys <= set(metrics(project, name)), name
    evaluate = metrics(project, "evaluate")
    assert SCORES | {"calibration_error"} <= set(evaluate["test"])
    assert {"accuracy", "roc_auc"} <= set(evaluate["validation"])
    assert {"majority_accuracy", "histogram_accuracy", "joint_histogram_accuracy"} <= set(evaluate["baseline"])


def test_counts_of_the_stages_add_up(project):
    ingest, clean, split, balance = (metrics(project, name) for name in ("ingest", "clean", "split", "balance"))
    assert ingest["images"] == 208
    assert clean["outliers"] == 8
    removed = clean["outliers"] + clean["duplicates"] + clean["near_duplicates"]
    assert clean["kept"] == ingest["images"] - removed
    assert split["train"] + split["validation"] + split["test"] == clean["kept"]
    assert split["shared_groups"] == 0
    assert balance["after"]["healthy"] == balance["after"]["unhealthy"]


def test_second_repro_runs_nothing(project):
    assert stages_run(project.run("dvc", "repro").stdout) == []


def test_changed_comment_reruns_nothing(project):
    path = project.folder / "params.yaml"
    text = path.read_text()
    path.write_text("# another comment\n" + text)
    assert stages_run(project.run("dvc", "repro").stdout) == []
    path.write_text(text)


def test_results_show_accuracy_and_baselines(project):
    lines = project.run("leaf", "results").stdout.splitlines()
    shown = {line.split()[0]: line for line in lines if line.strip()}
    evaluate = metrics(project, "evaluate")
    assert f" {100 * evaluate['test']['accuracy']:.1f}%" in shown["test"]
    for share in evaluate["baseline"].values():
        assert f" {100 * share:.1f}%" in shown["baselines"]


def test_tables_trace_each_image_from_ingest_to_prediction(project):
    def read(name):
        return pd.read_csv(project.folder / "data" / name, keep_default_na=False)

    index, decisions = read("ingested/index.csv"), read("cleaned/decisions.csv")
    splits, predictions = read("split/splits.csv"), read("scored/predictions.csv")
    assert list(decisions.image) == list(index.image)
    assert set(splits.image) == set(decisions.image[decisions.kept == 1])
    held_out = splits[splits.split != "train"]
    assert set(predictions.image) == set(held_out.image)
    output = project.run("leaf", "why", str(held_out.image.iloc[0])).stdout
    assert held_out.split.iloc[0] in output


def test_changed_dropout_reruns_only_training_and_later_stages(project):
    output = project.run("dvc", "exp", "run", "-n", "more-dropout", "-S", "dropout=0.2").stdout
    assert stages_run(output) == ["validate", "train", "evaluate", "report"]
    changed = project.run("dvc", "params", "diff").stdout
    assert re.search(r"params\.yaml\s+dropout\s+0\.1\s+0\.2", changed)
    difference = project.run("dvc", "metrics", "diff", "--all").stdout
    assert re.search(r"evaluate\.json\s+test\.log_loss\s+[\d.]+\s+[\d.]+\s+-?[\d.]+", difference)
    assert re.search(r"ingest\.json\s+images\s+208\s+208\s+0", difference)
    shown = project.run("dvc", "exp", "show", "--csv").stdout
    assert "more-dropout" in shown
    # With the previous value, DVC restores the trained network from the run cache.
    project.run("git", "checkout", "--quiet", "--", ".")
    back = project.run("dvc", "repro").stdout
    assert "train" not in stages_run(back)
    assert project.run("git", "status", "--porcelain").stdout == ""


def test_temporary_experiment_leaves_the_workspace_unchanged(project):
    output = project.run("dvc", "exp", "run", "--temp", "-n", "aside", "-S", "epochs=1").stdout
    assert "aside" in output
    assert project.run("git", "status", "--porcelain").stdout == ""
    difference = project.run("dvc", "metrics", "diff", "main", "aside").stdout
    assert re.search(r"train\.json\s+epochs\s+2\s+1\s+-1", difference)


def test_queued_experiment_runs(project):
    project.run("dvc", "exp", "run", "--queue", "-n", "queued", "-S", "dropout=0.3")
    output = project.run("dvc", "exp", "run", "--run-all", "-j", "1").stdout
    assert "queued" in output
    assert "queued" in project.run("dvc", "exp", "list", "--name-only").stdout.split()


def test_plots_and_dag_are_drawn(project):
    output = project.run("dvc", "plots", "show").stdout
    page = output.strip().splitlines()[-1].removeprefix("file://")
    text = (project.folder / page).read_text()
    assert "learning_rate" in text
    assert "confusion" in text.lower()
    assert "cdn.jsdelivr.net" in text
    project.run("dvc", "plots", "show", "--html-template", "docs/plots.html")
    text = (project.folder / page).read_text()
    assert '"label": "unhealthy"' in text
    assert 'src="http' not in text
    graph = project.run("dvc", "dag", "--mermaid").stdout
    assert all(stage in graph for stage in ("ingest", "clean", "balance", "train", "evaluate", "report"))


def test_dvc_tracks_data_added_under_data_raw(clone):
    from dvc.repo import Repo

    project = clone("added")
    (project.folder / "data/raw/mine").mkdir(parents=True)
    (project.folder / "data/raw/mine/photo").write_text("x")
    project.run("dvc", "add", "--quiet", "data/raw/mine")
    with Repo(str(project.folder)) as repo:
        assert any(stage.addressing.endswith("data/raw/mine.dvc") for stage in repo.index.stages)
    assert "data/raw/mine.dvc" in project.run("git", "status", "--porcelain", "--untracked-files=all").stdout


def test_same_seed_gives_bit_identical_files(project, clone):
    again = clone("again")
    again.set(**yaml.safe_load((project.folder / "params.yaml").read_text()))
    again.run("dvc", "repro", COLD="1")  # in new processes, because `project` ran in forked ones
    first, second = (yaml.safe_load((run.folder / "dvc.lock").read_text())["stages"] for run in (project, again))
    for stage, entry in first.items():
        if stage == "report":  # the page contains the date
            continue
        assert entry["outs"] == second[stage]["outs"], stage


@pytest.mark.parametrize(
    ("setting", "output"),
    [
        ("dropout=2", "error: params.yaml: dropout: 2; valid: a fraction ≥ 0 and < 1"),
        ("patience=many", "error: params.yaml: patience: 'many'; valid"),
    ],
)
def test_invalid_parameter_is_a_one_line_error_and_keeps_the_outputs(project, setting, output):
    project.run("dvc", "exp", "run", "--temp", "-S", setting, status=None)
    key, _, value = setting.partition("=")
    text = (project.folder / "params.yaml").read_text()
    project.set(**{key: yaml.safe_load(value)})
    refused = project.run("leaf", "check", status=2)
    assert output in refused.stderr
    assert refused.stderr.count("\n") == 1
    (project.folder / "params.yaml").write_text(text)
    assert (project.folder / "models/model.keras").is_file()


def test_hostile_value_does_not_reach_a_shell(project, tmp_path):
    target = tmp_path / "ran"
    values = {"backbone": f"$(touch {target})", "monitor": f"`touch {target}`"}
    values |= {"weights": f"!!python/object/apply:os.system ['touch {target}']"}
    for group in (values, {"dataset": f"'; touch {target}; '"}):  # two runs, because DVC rejects a missing data set
        settings = (word for key, value in group.items() for word in ("-S", f"{key}={json.dumps(value)}"))
        assert project.run("dvc", "exp", "run", "--temp", *settings, status=None).returncode
    assert not target.exists()


def test_failed_run_restores_the_workspace(project):
    def state():
        names = ("params.yaml", "dvc.lock", "models/model.keras", "data/split/splits.csv", "metrics/evaluate.json")
        return {name: (project.folder / name).read_bytes() for name in names}

    before = state()
    (project.folder / "weights.h5").write_bytes(b"not weights")  # `leaf check` does not read the file
    done = project.run("leaf", "run", "plain", "-S", "weights=weights.h5", "-S", "split_seed=7", status=None)
    assert done.returncode
    assert "run failed: params.yaml, metrics and outputs" in done.stderr
    assert state() == before


@pytest.mark.parametrize("command", [("repro",), ("exp", "run", "-S", "dropout=0.2")], ids=["repro", "exp run"])
def test_invalid_combination_leaves_outputs_and_predict_intact(project, command):
    params = project.folder / "params.yaml"
    before = params.read_text(encoding="utf-8")
    outputs = [project.folder / name for name in ("models/model.keras", "models/run.json", "data/scored/scores.json")]
    contents = [path.read_bytes() for path in outputs]
    project.set(optimizer="lbfgs", validation_size=40)  # lbfgs requires no dropout and no flips; the split changes too
    try:
        done = project.run("dvc", *command, status=None)
        assert done.returncode
        assert "optimizer: lbfgs" in done.stderr
        assert [path.read_bytes() for path in outputs] == contents
        image = next((project.folder / "docs").rglob("*.png"))
        assert "healthy" in project.run("leaf", "predict", str(image)).stdout
    finally:
        params.write_text(before, encoding="utf-8")
    assert stages_run(project.run("dvc", "repro").stdout) in ([], ["validate"])


def test_forced_run_replaces_an_experiment_only_on_success(project):
    def experiments():
        refs = project.run("git", "for-each-ref", "refs/exps", "--format=%(refname:lstrip=-1) %(objectname)").stdout
        return dict(line.split() for line in refs.splitlines())

    project.run("dvc", "exp", "save", "--name", "default")
    before = experiments()
    forced = ("leaf", "run", "default", "--force", "--temp", "-S")
    assert project.run(*forced, "freeze_depth=5000", status=None).returncode
    assert experiments() == before
    project.run(*forced, "threshold=0.4")
    after = experiments()
    assert after.keys() == before.keys()
    assert after["default"] != before["default"]
