"""An image of the database to one object: blocks, multipart upload, resume, schedule."""
