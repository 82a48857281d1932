"""`make demo`: the whole of varve's main job on real parts, told so that a newcomer sees the chain change."""
