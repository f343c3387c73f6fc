import subprocess
import sys

SCRIPT = """
import sys

class Blocker:
    blocked = {"gymnasium", "stable_baselines3", "metaworld", "mujoco", "tensorboard", "agents", "envs", "torchjd"}

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.blocked:
            raise ImportError(f"{name} must not be needed")

sys.meta_path.insert(0, Blocker())
import torch
import mtrl_transfer.choosing.search  # a module may be imported before the names of the package are
import mtrl_transfer
assert set(mtrl_transfer.__all__) <= set(dir(mtrl_transfer))
for module in mtrl_transfer.COMBINERS:
    pass
mtrl_transfer.PCGrad()(torch.eye(3))
assert torch.get_float32_matmul_precision() == "highest"
print("fine")
"""


def test_without_reinforcement_learning_installed():
    done = subprocess.run([sys.executable, "-W", "error", "-c", SCRIPT], capture_output=True, text=True, check=False)
    assert done.stdout == "fine\n", done.stderr
