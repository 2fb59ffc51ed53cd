"""All worlds by name."""

from __future__ import annotations

from typing import Any

from .agent import AgentWorld, LeavingWorld, WitnessWorld
from .client import ClientWorld, OneMasterWorld
from .gateway import GatewayWorld
from .large import LargeWorld
from .loop import LoopWorld
from .master import ForgetfulWorld, GroupWorld, HeirWorld, IllWorld, MasterWorld, PoisonWorld, StoppedWorld, StreamWorld
from .process import ProcessWorld
from .standby import EngineWorld, PrimaryWorld, StandbyWorld

WORLDS: dict[str, type[Any]] = {
    "master": MasterWorld,
    "stopped": StoppedWorld,
    "ill": IllWorld,
    "poison": PoisonWorld,
    "stream": StreamWorld,
    "heir": HeirWorld,
    "forgetful": ForgetfulWorld,
    "group": GroupWorld,
    "large": LargeWorld,
    "agent": AgentWorld,
    "leaving": LeavingWorld,
    "witness": WitnessWorld,
    "standby": StandbyWorld,
    "primary": PrimaryWorld,
    "engine": EngineWorld,
    "client": ClientWorld,
    "one master": OneMasterWorld,
    "process": ProcessWorld,
    "loop": LoopWorld,
    "gateway": GatewayWorld,
}
