#!/usr/bin/env python3
"""What a TCP connection reaches between two hosts of this machine (hosts.sh), as shares of the link's rate.

    tcp_rates.py [MIB]        as root; MIB sent each way (8)

For each link: one way, and both ways at once, with the acknowledgements of each way behind the data of the other; medians of
five. No MPI.

SPDX-License-Identifier: BSD-3-Clause
"""

import os
import socket
import statistics
import subprocess
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
HOSTS, NAME, PORT, RUNS = os.path.join(HERE, "hosts.sh"), "lstcp", 5077, 5
RATES = {"10gbit": 10e9, "1gbit": 1e9, "100mbit": 1e8}


def receive(link, count):
    room = bytearray(1 << 20)
    while count > 0:
        got = link.recv_into(room, min(count, len(room)))
        if got == 0:
            sys.exit("tcp_rates: the other host is gone")
        count -= got


def talk(link, count, sends, receives):
    """Seconds until all is here and the other side has said so."""
    block = bytes(count) if sends else b""
    began = time.monotonic()
    sender = threading.Thread(target=link.sendall, args=(block,))
    sender.start()
    if receives:
        receive(link, count)
    sender.join()
    link.sendall(b".")
    receive(link, 1)
    return time.monotonic() - began


def host(role, count):
    if role == "server":
        with socket.create_server(("10.77.0.1", PORT)) as door:
            link = door.accept()[0]
    else:
        for _ in range(100):
            try:
                link = socket.create_connection(("10.77.0.1", PORT))
                break
            except ConnectionRefusedError:
                time.sleep(0.1)
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    client = role == "client"
    times = [[talk(link, count, both or client, both or not client) for _ in range(RUNS)] for both in (False, True)]
    if client:
        print(*(statistics.median(t) for t in times))


def main():
    if len(sys.argv) == 4 and sys.argv[1] == "host":
        return host(sys.argv[2], int(sys.argv[3]))
    count = int(sys.argv[1]) << 20 if len(sys.argv) > 1 else 8 << 20
    subprocess.run([HOSTS, "up", NAME, "2", "10gbit"], check=True)
    try:
        print("| link | one way | both ways |\n|---|---|---|")
        for rate, bits in RATES.items():
            subprocess.run([HOSTS, "rate", NAME, "2", rate], check=True)
            command = [sys.executable, os.path.abspath(__file__), "host"]
            with subprocess.Popen(["ip", "netns", "exec", NAME + "1", *command, "server", str(count)]) as server:
                told = subprocess.run(["ip", "netns", "exec", NAME + "2", *command, "client", str(count)], check=True,
                                      stdout=subprocess.PIPE, text=True).stdout.split()
                if server.wait() != 0:
                    sys.exit("tcp_rates: the server failed")
            print(f"| {rate} | " + " | ".join(f"{count * 8 / bits / float(seconds):.2f}" for seconds in told) + " |", flush=True)
    finally:
        subprocess.run([HOSTS, "down", NAME, "2"], check=True)
    return None


if __name__ == "__main__":
    main()
