"""What runs first inside the sandbox: it starts the program once for each input, every time in a process of its own.

`posttrain.tasks.sandbox` passes the text of this module to the interpreter inside. It imports next to nothing, as each
import costs a part of the time that a program takes. A program can reach this process and its pipes, which gains it
nothing: whatever it has there, it may print.
"""

import os
import sys
from importlib.machinery import SourceFileLoader


def main(
    program: str, out_of_time: int, report: int, inputs: list[int], outputs: list[int]
) -> None:
    """Run the file `program` for each input, from which it reads stdin; its stdout goes to the output.

    All but `program` and the signal `out_of_time` are descriptors. `report` gets a line "0 1" (number of the input, exit
    status) for each run, and before it one such as "0 ValueError: ..." if it raised. After a run that the signal ended
    no other is tried.
    """
    for number, (source, output) in enumerate(zip(inputs, outputs, strict=True)):
        child = os.fork()
        if child == 0:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            for place, descriptor in enumerate((source, output, nowhere)):
                os.dup2(descriptor, place)
            execute(program, number, report)
            return
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        tell(report, number, str(status))
        if status == -out_of_time:
            return


def execute(program: str, number: int, report: int) -> None:
    """Run the file as `python program` would."""
    sys.argv = [program]
    module = sys.modules["__main__"] = type(sys)("__main__")
    try:
        SourceFileLoader("__main__", program).exec_module(module)
    except Exception as error:
        tell(report, number, f"{type(error).__name__}: {error}"[:200])
        raise


def tell(report: int, number: int, found: str) -> None:
    """Write a line of the report."""
    line = f"{number} {found}".replace("\n", " ")
    os.write(report, f"{line}\n".encode(errors="replace"))


if __name__ == "__main__":
    signal, descriptor, *ends = map(int, sys.argv[2:])
    main(sys.argv[1], signal, descriptor, ends[: len(ends) // 2], ends[len(ends) // 2 :])
