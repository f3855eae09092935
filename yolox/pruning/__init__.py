"""Structured channel pruning: group × score × allocate → plan → apply → verify."""

from yolox.pruning.groups import Group, Member, trace_groups
from yolox.pruning.importance import TaylorScorer, l1_scores
from yolox.pruning.latency import measure_latency
from yolox.pruning.plan import PruneConfig, PruningError, PruningPlan
from yolox.pruning.pruner import PruneResult, carry_out, plan_pruning, prune_model
from yolox.pruning.report import ModelFigures, PruneReport, comparison_table
from yolox.pruning.surgery import apply_plan, mask_plan
from yolox.pruning.verify import verify_pruned

__all__ = [
    "Group",
    "Member",
    "ModelFigures",
    "PruneConfig",
    "PruneReport",
    "PruneResult",
    "PruningError",
    "PruningPlan",
    "TaylorScorer",
    "apply_plan",
    "carry_out",
    "comparison_table",
    "l1_scores",
    "mask_plan",
    "measure_latency",
    "plan_pruning",
    "prune_model",
    "trace_groups",
    "verify_pruned",
]
