"""Checkers: the invariants, one file each. A checker is told of what happens and raises Violation.

suite          all checkers of a run

commits        no fact vanishes or comes back without an operation; a live tag has its live manifest
vectors        equal state vectors mean equal facts
readiness      an instance is ready only while it shows what its site shows, and counts only what it has
restarts       a restarted instance has everything it had committed, before a peer can heal it
answers        every answer is one the specification allows, and content matches its digest
acknowledged   an acknowledged write was committed, and is there in the end
access         changes of access control are asked for, are never lost, and lead to the policy that the oracle says
rights_first   no content is committed under rights older than those its pusher had seen
admissions     a request is let in or refused by the facts that are committed at its instance at that moment
pushes         a push says everything it stands on in one operation, and ends what its instance showed of it
deletes        a delete ends all that its instance, and the members it could ask at once, showed of the key
winners        a pulled tag is what the winning fact points at
stamps         the time of a push is later than what was seen, and near its clock
holders        an eviction or a decommission gives up no last copy
identities     every instance has an id and writers of its own, and none waits for a removed one
lists          lists hold what the facts say
read_your_writes
               a pull that begins after a write was answered at its site shows that write or a later one
visibility     an answered write is visible at every instance of its site that holds a valid read lease
misses         a tag that is there, or at one that can be asked, is not answered with 404
convergence    after healing all agree: facts, views, digests, conflicts, content
bounds         queues, tasks and peer requests stay bounded
"""


class Violation(Exception):
    """A promise was broken."""
