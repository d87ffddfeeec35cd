"""What is tuned: a model, the dataset that judges it, the metric and the task."""

from dataclasses import dataclass, field

from tuner.dataset import Dataset
from tuner.judging import Judging
from tuner.metrics import AUTO, UNJUDGED
from tuner.model import ModelSource
from tuner.task import Call, Task
from tuner.tensors import Arrays as Arrays  # the code of registered MLflow models has it from here


@dataclass(frozen=True)
class Workload:
    """Model + dataset + metric + task. `metric` is `module:name` of one (`tuner.metrics`), accuracy is its value, and
    `metric_output` the name or the number of the output that it judges, where it is not to be found. `task` is what one
    timed unit of work is. `judging` is what the float model's answers settled of it."""

    model: ModelSource
    dataset: Dataset
    metric: str = AUTO
    task: Task = field(default_factory=Call)
    metric_output: str | None = None
    judging: Judging | None = None

    @property
    def name(self) -> str:
        return self.model.name

    @property
    def judged(self) -> bool:
        """Whether anything is said of accuracy: nothing is where the inputs are made up."""
        return self.metric != UNJUDGED

    @property
    def judge(self) -> Judging:
        """How candidates are judged: known once the float model has answered."""
        assert self.judging is not None, "nothing is judged before the float model"
        return self.judging
