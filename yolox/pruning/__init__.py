"""Structured channel pruning: group × score × allocate → plan → apply → verify."""

from yolox.pruning.compensate import absorb_constants, refit
from yolox.pruning.config import CRITERIA, PruneConfig, PruningError
from yolox.pruning.groups import Group, Member, trace_groups
from yolox.pruning.hint import ThresholdHint, threshold_hint
from yolox.pruning.importance import RandomScorer, TaylorScorer, WeightScorer, make_scorer
from yolox.pruning.latency import measure_latency
from yolox.pruning.latency_record import LatencyRecord
from yolox.pruning.plan import PruningPlan
from yolox.pruning.pruner import PruneResult, carry_out, compensate_cut, plan_pruning, prune_model
from yolox.pruning.report import (
    ModelFigures,
    PruneRecord,
    PruneReport,
    Stage,
    comparison_table,
    stages_table,
)
from yolox.pruning.sparsity import Sparsity, SparsityConfig, make_sparsity
from yolox.pruning.surgery import apply_plan, mask_plan
from yolox.pruning.verify import verify_plan

__all__ = [
    "CRITERIA",
    "Group",
    "LatencyRecord",
    "Member",
    "ModelFigures",
    "PruneConfig",
    "PruneRecord",
    "PruneReport",
    "PruneResult",
    "PruningError",
    "PruningPlan",
    "RandomScorer",
    "Sparsity",
    "SparsityConfig",
    "Stage",
    "TaylorScorer",
    "ThresholdHint",
    "WeightScorer",
    "absorb_constants",
    "apply_plan",
    "carry_out",
    "comparison_table",
    "compensate_cut",
    "make_scorer",
    "make_sparsity",
    "mask_plan",
    "measure_latency",
    "plan_pruning",
    "prune_model",
    "refit",
    "stages_table",
    "threshold_hint",
    "trace_groups",
    "verify_plan",
]
