"""Multi-task SAC: the agent and what it consists of."""
