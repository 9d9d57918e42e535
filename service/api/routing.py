"""Registering routes: every address that answers GET answers HEAD."""

from collections.abc import Callable
from typing import Any, TypeVar

from fastapi import APIRouter

Route = TypeVar("Route", bound=Callable[..., Any])


def reads(router: APIRouter, path: str, **options: Any) -> Callable[[Route], Route]:
    """Register a route for GET and HEAD.

    HEAD has no second entry in the contract (RFC 9110, 9.3.2).
    """

    def register(function: Route) -> Route:
        router.add_api_route(path, function, methods=["GET"], **options)
        router.add_api_route(path, function, methods=["HEAD"], **options | {"include_in_schema": False})
        return function

    return register
