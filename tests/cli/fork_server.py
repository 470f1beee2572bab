"""The program without the seconds of its start: a process that has imported everything forks.

python fork_server.py serve SOCKET ARGUMENTS...
python fork_server.py ask SOCKET ARGUMENTS...
"""

import json
import os
import signal
import socket
import sys
from typing import NoReturn

_MOST_BYTES = 1 << 20


def serve(path: str, warm: list[str]) -> NoReturn:
    """Run each command that is asked for in a process of its own, after a first one here."""
    from lavps_cli.cli.main import app

    app(warm, standalone_mode=False)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        while True:
            client, _ = server.accept()
            if os.fork() == 0:
                server.close()
                run(client)
            client.close()


def run(client: socket.socket) -> NoReturn:
    """Be the program, with the arguments and open files of who asks."""
    from lavps_cli.cli.main import main

    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    message, files, _, _ = socket.recv_fds(client, _MOST_BYTES, 3)
    asked = json.loads(message)
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    sys.stdin, sys.stdout, sys.stderr = map(os.fdopen, range(3), "rww")
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    sys.argv = asked["arguments"]
    code = 1
    try:
        main()
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    finally:
        sys.stdout.flush()
        client.sendall(bytes([code]))
        os._exit(code)


def ask(path: str, arguments: list[str]) -> int:
    """Have a command run, and return its exit code."""
    asked = {
        "arguments": ["lavps", *arguments],
        "folder": os.getcwd(),  # noqa: PTH109
        "environment": dict(os.environ),
    }
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
        socket.send_fds(client, [json.dumps(asked).encode()], [0, 1, 2])
        answer = client.recv(1)
    return answer[0] if answer else 99


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2], sys.argv[3:])
    sys.exit(ask(sys.argv[2], sys.argv[3:]))
