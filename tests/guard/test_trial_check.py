"""Whether trials can start: the count of GPU slots is NNI's own."""

import json
import os
import subprocess
from pathlib import Path

from guard.trial_check import gpu_slots

SCHEDULER = """
const Module = require('module'), load = Module._load, log = new Proxy({}, {get: () => () => undefined});
Module._load = (name, ...rest) => name === 'common/log' ? {getLogger: () => log}
  : name === 'common/pythonScript' ? {} : load(name, ...rest);
const {TaskScheduler, UnitTestHelpers} = require('common/trial_keeper/task_scheduler/scheduler');
async function slots([gpus, usable, each, share]) {
  UnitTestHelpers.mockGpuInfo({gpuNumber: gpus, gpus: [], processes: []});
  const scheduler = new TaskScheduler(), restrictions = {onlyUseIndices: [...Array(usable).keys()]};
  await scheduler.init();
  for (let n = 0; ; n++)
    if (await scheduler.schedule('e', `t${n}`, each / share, restrictions) === null) return n;
}
Promise.all(JSON.parse(process.argv[2]).map(slots)).then(found => console.log(JSON.stringify(found)));
"""


def test_gpu_slots_are_those_of_nni_own_scheduler(tmp_path: Path) -> None:
    import nni_node

    cases = [
        [gpus, usable, each, share]
        for gpus in (1, 2, 4, 8)
        for usable in range(1, gpus + 1)
        for each in (1, 2, 3, 4, 8)
        for share in (1, 2, 3, 4)
    ]
    (tmp_path / "slots.js").write_text(SCHEDULER)
    node = Path(nni_node.__path__[0])
    command = [str(node / "node"), str(tmp_path / "slots.js"), json.dumps(cases)]
    done = subprocess.run(
        command, env={**os.environ, "NODE_PATH": str(node)}, capture_output=True, text=True, timeout=60
    )
    assert json.loads(done.stdout) == [gpu_slots(*case) for case in cases], done.stderr
