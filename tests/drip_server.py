"""A server below HTTP, on loopback: a test writes what each connection gets, byte by byte."""

import contextlib
import socket
import threading


@contextlib.contextmanager
def sockets(behave, greet=False):
    """The port of a server that runs behave(connection, gone) for each; `gone` is set when the test leaves.

    greet: at once, before the client has sent its request.
    """
    gone, seen = threading.Event(), []

    def serve(connection):
        with connection, contextlib.suppress(OSError):
            if not greet:
                seen.append(connection.recv(65_536))
            behave(connection, gone)

    def accept():
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        try:
            yield listener.getsockname()[1], seen
        finally:
            gone.set()
            listener.shutdown(socket.SHUT_RDWR)  # wakes accept


def dripping(prefix, unit):
    """Sends `unit` again and again, until the client has left: the last send raises."""

    def behave(connection, gone):
        connection.sendall(prefix)
        while not gone.wait(0.02):
            connection.sendall(unit)

    return behave
