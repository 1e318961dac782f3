"""Eight office tasks, an evaluation of them, and a model server on loopback whose replies a test decides."""

import io
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from rich.console import Console

from rods_jax.dialogue import gold_player
from rods_jax.run.evaluating import Evaluation, evaluate, split_of

ROOT = Path(__file__).parent.parent
TASKS = split_of(Evaluation(player="gold", tasks="workplace", num_tasks=8)).tasks


def run(out, **changes):
    console = Console(file=io.StringIO(), width=80)
    return evaluate(Evaluation(**{"tasks": "workplace", "num_tasks": 8, "out": out} | changes), console), console


def chat_reply(action):
    calls = [
        {"id": "x", "type": "function", "function": {"name": call.name, "arguments": json.dumps(call.arguments)}}
        for call in action.calls
    ]
    message = {"role": "assistant", "content": action.answer, "tool_calls": calls}
    usage = {"prompt_tokens": 5, "completion_tokens": 3}
    return 200, json.dumps({"choices": [{"message": message}], "usage": usage})


def gold_reply(request):
    """What the gold player says at this point of the conversation."""
    (task,) = (task for task in TASKS if task.turns[0].user == request["messages"][0]["content"])
    player = gold_player(task)
    said = [player(()) for _ in range(1 + sum(m["role"] == "assistant" for m in request["messages"]))]
    return chat_reply(said[-1].action)


@contextmanager
def server(reply):
    """An OpenAI-compatible server: `reply(request) -> (status, body)`, or None to drop the connection."""
    requests = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            request = json.loads(self.rfile.read(int(self.headers["content-length"])))
            requests.append(request)
            answer = reply(request)
            if answer is None:
                self.connection.close()
                return
            body = answer[1].encode()
            self.send_response(answer[0])
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            try:
                self.wfile.write(body)
            except OSError:  # the client has given up
                pass

        def log_message(self, *_):
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_):
            pass

    with Server(("127.0.0.1", 0), Handler) as http:
        threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}/v1", requests
        http.shutdown()


def conversations(requests):
    """The longest request of each conversation."""
    longest = {}
    for request in requests:
        first = request["messages"][0]["content"]
        if len(request["messages"]) > len(longest.get(first, {"messages": ()})["messages"]):
            longest[first] = request
    return longest
