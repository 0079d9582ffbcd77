"""What an endpoint's component put out, held against the schema that the service's version promises for it.

A version freezes what callers see, not the code: a component that is deployed anew may put out something else. Callers
are then told so, instead of being given what they do not expect.
"""

from __future__ import annotations

import logging

from flow_platform.domain import errors
from flow_platform.domain.service import Endpoint
from flow_platform.engine.json_schema import SchemaUnusable, misfits
from flow_platform.engine.service_calls import Caller
from flow_sdk.wire.execution import StatusDocument

logger = logging.getLogger(__name__)


def response_problem(endpoint: Endpoint, caller: Caller, document: StatusDocument) -> errors.ResponseMismatch | None:
    """The error in the place of the output; None: it fits.

    What nobody can hold values against fits: a schema that was derived from annotations may have patterns that are not
    matched here.
    """
    try:
        details = misfits("response", endpoint.response_schema or {}, document.output)
    except SchemaUnusable as error:
        logger.info("the response of endpoint %r was not checked: %s", endpoint.name, error)
        return None
    if not details:
        return None
    said = "" if caller.is_anonymous else f": {details[0]['field']}: {details[0]['message']}"
    message = f"endpoint {endpoint.name!r} gave what does not fit its response_schema{said}"
    problem = errors.ResponseMismatch(message, execution_id=document.execution_id)
    if not caller.is_anonymous:
        problem.details += details
    return problem
