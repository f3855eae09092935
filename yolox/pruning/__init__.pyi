"""Structured channel pruning: group × score × allocate → plan → apply → verify."""

from .compensate import absorb_constants
from .config import CRITERIA, PruneConfig, PruningError
from .groups import Group, Member
from .hint import ThresholdHint, threshold_hint
from .importance import RandomScorer, TaylorScorer, WeightScorer
from .judge import Judgement, LabelledImages
from .latency.measure import measure_latency
from .latency.record import LatencyRecord
from .plan import PruningPlan
from .proof.verify import verify_plan
from .pruner import PruneResult, apply_and_verify, compensate_cut, plan_pruning, prune_model
from .reconstruct import refit
from .report import (
    ModelFigures,
    PruneRecord,
    PruneReport,
    Stage,
    comparison_table,
    stages_table,
)
from .scorers import make_scorer
from .sparsity import Sparsity, SparsityConfig, make_sparsity
from .surgery import apply_plan, mask_plan
from .tracing.trace import trace_groups

__all__ = [
    "CRITERIA",
    "Group",
    "Judgement",
    "LabelledImages",
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
    "apply_and_verify",
    "apply_plan",
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
