"""The run on disk, writer's side: lock, shards, manifest, run.json. numpy and pyarrow only."""
