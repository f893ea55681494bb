// Package statusutil stands in for a module of the Collector that is not published: what a receiver answers to what it refuses. It is
// ours, so nothing may be asserted on the codes and details of such answers.
package statusutil

import (
	"net/http"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// NewStatusFromMsgAndHTTPCode returns the status of gRPC for a status of HTTP.
func NewStatusFromMsgAndHTTPCode(message string, code int) *status.Status {
	switch code {
	case http.StatusBadRequest:
		return status.New(codes.InvalidArgument, message)
	case http.StatusUnauthorized:
		return status.New(codes.Unauthenticated, message)
	case http.StatusForbidden:
		return status.New(codes.PermissionDenied, message)
	case http.StatusNotFound:
		return status.New(codes.Unimplemented, message)
	case http.StatusTooManyRequests:
		return status.New(codes.ResourceExhausted, message)
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return status.New(codes.Unavailable, message)
	default:
		return status.New(codes.Unknown, message)
	}
}

// GetRetryInfo returns when a client may come again, where its status says so.
func GetRetryInfo(of *status.Status) *errdetails.RetryInfo {
	for _, detail := range of.Details() {
		if info, ok := detail.(*errdetails.RetryInfo); ok {
			return info
		}
	}
	return nil
}
