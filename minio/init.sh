#!/bin/sh
# Prepares the MinIO server of docker-compose.yml: the bucket, the policy, the user.
# May run any number of times.
set -eu

mc alias set store "$REPLICATOR_ENDPOINT_URL" "$MINIO_ROOT_USER" "$MINIO_ROOT_PASSWORD"
mc mb --ignore-existing "store/$REPLICATOR_BUCKET"
mc admin policy create store replicator /minio/policy.json
mc admin user add store "$AWS_ACCESS_KEY_ID" "$AWS_SECRET_ACCESS_KEY"

# attaching a policy that is attached already is an error to mc, not to us
mc admin policy attach store replicator --user "$AWS_ACCESS_KEY_ID" \
    || mc admin user info store "$AWS_ACCESS_KEY_ID" | grep -q 'PolicyName: *replicator'
