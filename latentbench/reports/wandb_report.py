"""A report of a group of runs on a W&B server: the leaderboard, the cells, their samples."""

from typing import Any


def write(entity: str, project: str, group: str) -> str:
    """Make the report of a group, or replace the one that it has, and return its address.

    The report draws what the group's runs hold, so runs that are logged later appear in it.

    Args:
        entity: the user or team that the project belongs to.
        project: name of the project.
        group: name of the group, which also names the report.

    Raises:
        wandb.Error: the server does not take it.
    """
    import wandb
    import wandb_workspaces.reports.v2 as wr

    title = f"latentbench: {group}"[:128]
    report = wr.Report(
        entity=entity,
        project=project,
        title=title,
        description="Every pair of methods is tested on the same images; intervals hold 95%.",
        width="fluid",
        blocks=[
            wr.H2("Leaderboard"),
            wr.P("A row per method and figure: value, interval, and the ranks it may have."),
            wr.PanelGrid(
                runsets=[_runs(entity, project, group, "leaderboard")],
                panels=[_table("leaderboard")],
            ),
            wr.H2("Cells"),
            wr.P("A run per cell: scores, costs and settings. The samples of those chosen follow."),
            wr.PanelGrid(
                runsets=[_runs(entity, project, group, "cell")],
                panels=[_table("samples")],
            ),
        ],
    )
    known = wandb.Api().reports(f"{entity}/{project}", name=title)
    report.id = next((old.id for old in known), "")
    report.save()
    return report.url


def _runs(entity: str, project: str, group: str, kind: str) -> Any:
    """Return the group's runs of one kind, as a set that a panel reads."""
    import wandb_workspaces.reports.v2 as wr
    from wandb_workspaces import expr

    escaped = group.replace("\\", r"\\").replace("'", r"\'")  # the library parses it as Python
    chosen = [expr.Metric("Group") == escaped, expr.Metric("JobType") == kind]
    return wr.Runset(entity=entity, project=project, name=f"{kind}s", filters=chosen)


def _table(name: str) -> Any:
    """Return a panel over the whole width that shows a table of its runs."""
    import wandb_workspaces.reports.v2 as wr

    return wr.WeavePanelSummaryTable(table_name=name, layout=wr.Layout(w=24, h=16))
