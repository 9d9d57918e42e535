"""The commands of ``python -m gateway``."""

import argparse
import logging
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from gateway.check import check
from gateway.configuration import read_configuration
from gateway.dimse.retrieving import Wanted, fetch
from gateway.errors import PeerFailed, ServiceAway, ServiceRefused, SetupInvalid
from gateway.inbox import Inbox
from gateway.instances import read_texts
from gateway.rules import Sent, in_words
from gateway.running import Gateway
from gateway.service_client import ServiceClient
from gateway.settings import GatewaySettings, read_settings
from gateway.store import Store
from oarlock import logs
from oarlock.store.files import PRIVATE_UMASK, make_private

_QUOTING: Final = ("pynetdicom", "httpx", "httpcore")
"""Loggers that quote what was sent, or name each call."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; 0 where it did what it was asked."""
    options = _parser().parse_args(arguments)
    os.umask(PRIVATE_UMASK)
    try:
        settings = read_settings()
        done: int = options.command(settings, options)
    except (SetupInvalid, OSError) as error:
        print(f"The gateway cannot go on: {error}", file=sys.stderr)
        return 1
    return done


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m gateway", description="Oarlock's DICOM gateway. Without a command it receives."
    )
    parser.set_defaults(command=serve)
    commands = parser.add_subparsers(metavar="COMMAND")
    explain = commands.add_parser("explain", help="say what the rules would do with files, and why")
    explain.add_argument("files", nargs="+", type=Path, metavar="FILE")
    explain.add_argument("--calling", default="", help="AE title that sends them")
    explain.add_argument("--called", help="AE title that they are sent to; without it the first of titles")
    explain.set_defaults(command=explain_files)
    listing = commands.add_parser("list", help="say what is here and how it stands")
    listing.set_defaults(command=list_series)
    complete = commands.add_parser("complete", help="count a series as whole now")
    complete.add_argument("series_uid", metavar="SERIES_UID")
    complete.set_defaults(command=complete_series)
    resend = commands.add_parser("resend", help="send the results of a job again; a job that failed is tried again")
    resend.add_argument("job", metavar="JOB")
    resend.add_argument("--to", metavar="PLACE", help="to this place alone")
    resend.set_defaults(command=resend_results)
    fetch = commands.add_parser("fetch", help="bring a series here from an archive, to be contoured")
    fetch.add_argument("archive", metavar="ARCHIVE", help="name of the peer")
    fetch.add_argument("series_uid", metavar="SERIES_UID")
    fetch.add_argument("--study", default="", metavar="UID", help="its study, for archives that find no series without it")
    fetch.add_argument("--called", help="AE title that it counts as sent to; without it the first of titles")
    fetch.add_argument("--structure-sets", action="store_true", help="bring the RTSTRUCTs of its study first, as references")
    fetch.add_argument(
        "--priors",
        type=int,
        default=0,
        metavar="N",
        help="bring up to N earlier CT series of the patient with approved RTSTRUCTs too, for QA alone",
    )
    fetch.set_defaults(command=fetch_series)
    checking = commands.add_parser("check", help="ask the service and every peer, server and folder whether they are there")
    checking.add_argument("--store", type=Path, metavar="FILE", help="store this file (of a phantom) at every peer")
    checking.set_defaults(command=check_all)
    return parser


def serve(settings: GatewaySettings, _: argparse.Namespace) -> int:
    """Receive until a signal asks to stop."""
    logs.set_up()
    for quoting in _QUOTING:
        logging.getLogger(quoting).setLevel(logging.CRITICAL)
    configuration = read_configuration(settings.configuration)
    make_private(settings.data)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a post holds all files of its series open
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    gateway = Gateway(settings, configuration)
    try:
        with gateway.running():
            ports = " and ".join(str(port) for port in gateway.receiver.ports)
            titles = ", ".join(configuration.titles)
            print(f"Oarlock's gateway listens on {settings.host}, port {ports}, as {titles}", flush=True)
            ended.wait()
    finally:
        gateway.close()
    return 0


def explain_files(settings: GatewaySettings, options: argparse.Namespace) -> int:
    """Print what would happen to each file's series."""
    configuration = read_configuration(settings.configuration)
    sent = Sent(options.calling, options.called or configuration.titles[0])
    for path in options.files:
        print(f"{path}:")
        for line in in_words(read_texts(path), sent, configuration).splitlines():
            print(f"  {line}")
    return 0


def list_series(settings: GatewaySettings, _: argparse.Namespace) -> int:
    """Print each series with its posts and deliveries."""
    store = Store(settings.data)
    for series in store.series(held=True):
        state = "coming in" if series.changed else series.note or "posted"
        print(f"{series.uid}  {series.calling} -> {series.called}  {len(store.images(series.id))} images  {state}")
        for post in store.posts(series=series.id):
            print(f"  post {post.id}  {post.state}  job {post.job or '-'}  {post.note}".rstrip())
            for one in store.deliveries(post=post.id):
                print(f"    {one.result} to {one.place}  {one.state}  attempts {one.attempts}  {one.note}".rstrip())
    store.close()
    return 0


def complete_series(settings: GatewaySettings, options: argparse.Namespace) -> int:
    """Count a series as whole now; the running gateway does the rest."""
    store = Store(settings.data)
    found = store.force(options.series_uid)
    store.close()
    print("It is posted now." if found else "No such series is coming in.")
    return 0 if found else 1


def resend_results(settings: GatewaySettings, options: argparse.Namespace) -> int:
    """Ask for the results of a job to be delivered again.

    The running gateway does the rest.
    """
    store = Store(settings.data)
    try:
        found = store.resend(options.job, time.time(), place=options.to)
        failed = [post for post in store.posts(states=("failed",)) if post.job == options.job]
        if failed and not options.to:
            ServiceClient(settings).retry(options.job)
            store.change_post(failed[-1].id, state="posted", ended_at=None, note="")
            print("The service tries the job again.")
            return 0
    except (ServiceAway, ServiceRefused) as error:
        print(f"The job was not tried again: {error}", file=sys.stderr)
        return 1
    finally:
        store.close()
    print(f"{found} result(s) are sent again." if found else "No result of such a job is known here.")
    return 0 if found else 1


def fetch_series(settings: GatewaySettings, options: argparse.Namespace) -> int:
    """Bring a series here; 0 when all of it came.

    With C-MOVE the gateway has to run, as the archive sends to it.
    """
    configuration = read_configuration(settings.configuration)
    title = options.called or configuration.titles[0]
    store = Store(settings.data)
    inbox = Inbox(settings.data, store, min_free_bytes=settings.min_free_bytes, clock=time.time)
    try:
        archive = next((peer for peer in configuration.peer if peer.name == options.archive), None)
        if archive is None:
            raise SetupInvalid(f"the configuration has no peer {options.archive!r}.")
        wanted = Wanted(options.series_uid, options.study, structure_sets=options.structure_sets, priors=options.priors)
        brought = fetch(archive, title, wanted, store, inbox)
        print(f"{brought.files} files came.{f' {brought.note}.' if brought.note else ''}")
    except PeerFailed as reason:
        print(f"{options.archive}: {reason}.", file=sys.stderr)
        return 1
    finally:
        store.close()
    return 0


def check_all(settings: GatewaySettings, options: argparse.Namespace) -> int:
    """Print what each of them answers; 0 when all is well."""
    configuration = read_configuration(settings.configuration)
    fine = True
    for answer in check(configuration, ServiceClient(settings), options.store):
        print(answer, flush=True)
        fine = fine and answer.fine
    return 0 if fine else 1
