"""Errors of the operator.

OperatorError
+-- ClusterError            a call to the cluster failed
|   +-- NotFound            the object is gone, or has another uid
|   +-- AlreadyExists       an object of that name exists
|   +-- Conflict            our resourceVersion is old: run the pass again
|   +-- Refused             the cluster says no (forbidden, invalid, quota): a person must act
|   +-- Unavailable         time-out, 429, 5xx, no connection: may pass
|       +-- Expired         410, the cluster remembers less than was asked for: begin with a new list
+-- LocalModeError          local mode cannot go on; a person must act
"""

from __future__ import annotations


class OperatorError(Exception):
    """Root of the tree above."""


class ClusterError(OperatorError):
    """A call to the cluster failed."""


class NotFound(ClusterError):
    """The object is gone, or has another uid than the precondition names."""


class AlreadyExists(ClusterError):
    """An object of that name exists."""


class Conflict(ClusterError):
    """The resourceVersion that we hold is old."""


class Refused(ClusterError):
    """The cluster says no; the message names what a person must change."""


class Unavailable(ClusterError):
    """The cluster did not answer; the call may be repeated."""


class Expired(Unavailable):
    """The cluster no longer knows the version that was named; a new list does."""


class LocalModeError(OperatorError):
    """Local mode cannot go on; the message says what to do."""
