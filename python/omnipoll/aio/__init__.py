"""An asyncio event loop over omnipoll's engines.

The loop is native where programs call it often, and the standard library's own code, inherited, where it is
called once for a connection or a program: what asyncio documents holds, version by version.
"""

from omnipoll.aio.event_loop import EventLoop
from omnipoll.aio.policy import EventLoopPolicy
from omnipoll.aio.runners import new_event_loop, run

__all__ = ["EventLoop", "EventLoopPolicy", "new_event_loop", "run"]
